"""Which machines share a snapshot, and which never do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from swarm.kernel.settings import Settings
from swarm.sandbox.microvm import building
from swarm.sandbox.microvm.accelerators import Accelerator
from swarm.sandbox.microvm.building import SnapshotBuilder, machine_bytes
from swarm.sandbox.microvm.image import Image
from swarm.sandbox.microvm.monitors import Machine, MachinePlan
from swarm.sandbox.microvm.qemu import QemuMonitor
from swarm.sandbox.microvm.snapshots import AGENT_DISK, MEBIBYTE, Template
from swarm.sandbox.microvm.workplace import Workplace
from swarm.sandbox.ports import Limits, Program, SandboxRequest

LIMITS = Limits(memory_bytes=256 * MEBIBYTE, timeout_seconds=10)


@pytest.fixture
async def plan(tmp_path: Path) -> AsyncIterator[MachinePlan]:
    workplace = Workplace(tmp_path / "work")
    image = Image(tmp_path, "image-1", "3.11", "6.1")
    yield MachinePlan(image, workplace, 1 << 28, agent=-1, package=-1, inputs=-1)
    workplace.close()


def request_for(digest: str, limits: Limits = LIMITS) -> SandboxRequest:
    return SandboxRequest(Program("python", ("main.py",), Path("/nowhere"), digest), limits)


def key(request: SandboxRequest, plan: MachinePlan, monitor: QemuMonitor) -> str:
    return building._package_key(building._identity(monitor, plan), request, plan.image)


async def test_a_snapshot_is_of_one_package_and_one_accelerator(plan: MachinePlan) -> None:
    emulated = QemuMonitor(Accelerator.TCG, "QEMU 7.2")
    request = request_for("a")
    keys = {
        key(request, plan, emulated),
        key(request_for("b"), plan, emulated),
        key(request, plan, QemuMonitor(Accelerator.KVM, "QEMU 7.2")),
        key(request, plan, QemuMonitor(Accelerator.TCG, "QEMU 8.0")),
        key(request, replace(plan, image=replace(plan.image, digest="image-2")), emulated),
        key(request, replace(plan, memory_bytes=1 << 29), emulated),
        key(request_for("a", replace(LIMITS, processes=7)), plan, emulated),
    }
    assert len(keys) == 7


async def test_what_each_call_has_of_its_own_needs_no_snapshot_of_its_own(
    plan: MachinePlan,
) -> None:
    monitor = QemuMonitor(Accelerator.TCG, "QEMU 7.2")
    request = request_for("a")
    same = replace(request, environment={"NAME": "value"})
    later = replace(request, limits=replace(LIMITS, timeout_seconds=99))
    assert {key(each, plan, monitor) for each in (request, same, later)} == {
        key(request, plan, monitor)
    }


def test_sizes_of_machines_are_few() -> None:
    sizes = {machine_bytes(replace(LIMITS, memory_bytes=n * MEBIBYTE)) for n in range(1, 1025)}
    assert len(sizes) == 4
    assert all(
        machine_bytes(replace(LIMITS, memory_bytes=n * MEBIBYTE)) > n * MEBIBYTE
        for n in range(1, 1025)
    )


class Refusing:
    """A monitor whose machines must not be needed."""

    layer = "microvm-none"

    def identity(self) -> list[str]:
        return []

    async def boot(self, plan: MachinePlan) -> Machine:
        raise AssertionError("a machine boots")

    async def snapshot(self, machine: Machine, folder: Path) -> None:
        raise AssertionError("a machine is put into a snapshot")

    async def restore(
        self, plan: MachinePlan, template: Template, *, is_kept: bool = False
    ) -> Machine:
        raise AssertionError("a machine is restored")


async def test_one_on_disk_is_used_by_whoever_comes_next(plan: MachinePlan, tmp_path: Path) -> None:
    monitor, request = Refusing(), request_for("a")
    name = building._package_key(building._identity(monitor, plan), request, plan.image)
    folder = tmp_path / "snapshots" / "packages" / name
    folder.mkdir(parents=True)
    (folder / "memory").write_bytes(bytes(MEBIBYTE))
    (folder / "state").write_bytes(b"state")
    (folder / AGENT_DISK).write_bytes(b"agent")
    builder = SnapshotBuilder(Settings(home=tmp_path), tmp_path / "snapshots")
    async with builder.use(request, monitor, plan) as template:
        assert template.memory_bytes == MEBIBYTE
    builder.close()
