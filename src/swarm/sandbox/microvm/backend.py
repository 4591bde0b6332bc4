"""Isolation level ``microvm``: each invocation in a machine restored from a snapshot."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.home import Home
from swarm.kernel.ids import new_id
from swarm.kernel.settings import Settings
from swarm.sandbox.egress.policy import EgressPolicy
from swarm.sandbox.egress.proxy import EgressProxy
from swarm.sandbox.interpreters import python_program
from swarm.sandbox.linux import cgroups, plan
from swarm.sandbox.linux.cgroups import Cgroup
from swarm.sandbox.microvm import probing
from swarm.sandbox.microvm.building import DISK_BYTES, SnapshotBuilder, guest_facts, machine_bytes
from swarm.sandbox.microvm.image import Image, find_image
from swarm.sandbox.microvm.monitors import Machine, MachinePlan, Monitor
from swarm.sandbox.microvm.sandbox import MicrovmSandbox, Parts
from swarm.sandbox.microvm.snapshots import MEBIBYTE, Template, empty_disk
from swarm.sandbox.microvm.squashfs import write_squashfs
from swarm.sandbox.microvm.wiring import ProxyRelay
from swarm.sandbox.microvm.workplace import Workplace
from swarm.sandbox.ports import Limits, Program, SandboxRequest

_MONITOR_BYTES: Final = 256 * MEBIBYTE
"""Memory that a monitor may take beyond the machine's."""
_MONITOR_PROCESSES: Final = 32
_AHEAD_NICENESS: Final = 10
_OWNER: Final = plan.INSIDE_ID


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What is found out once."""

    image: Image
    monitor: Monitor


class MicrovmBackend:
    """Makes sandboxes out of virtual machines.

    Args:
        settings: limits, the image's place, how much snapshots may take.
        lock_descriptors: open files whose locks must not come free before the last machine is gone.
    """

    def __init__(self, settings: Settings, *, lock_descriptors: Sequence[int] = ()) -> None:
        home = Home(settings.home.expanduser().absolute())
        self._settings = settings
        self._locks = tuple(lock_descriptors)
        self._run_folder = home.root / "run" / "microvm"
        self._builder = SnapshotBuilder(settings, home.cache / "microvm" / "snapshots")
        self._starting = asyncio.Lock()
        self._facts: HostFacts | None = None
        self._tree: cgroups.CgroupTree | None = None
        self._workplace: Workplace | None = None
        self._empty = -1
        """Descriptor of the disk of those that have none."""
        self._sandboxes: set[MicrovmSandbox] = set()

    async def prepare(self, request: SandboxRequest) -> MicrovmSandbox:
        """Restore a machine; see :class:`swarm.sandbox.ports.SandboxBackend`.

        The first time for a package, its snapshot is built.
        """
        return await self._prepare(request, is_ahead=False)

    @property
    def blanks(self) -> None:
        """None: a machine is restored with its package in it."""

    async def prepare_ahead(self, request: SandboxRequest) -> MicrovmSandbox:
        """Restore one at a lower priority; see :class:`swarm.sandbox.ports.AheadBackend`."""
        sandbox = await self._prepare(request, is_ahead=True)
        try:
            await sandbox.become_ready()
        except BaseException:
            await sandbox.destroy()
            raise
        return sandbox

    async def close(self) -> None:
        """Destroy every sandbox; snapshots on disk stay. Safe to call twice."""
        for sandbox in list(self._sandboxes):
            await sandbox.destroy()
        self._builder.close()
        if self._workplace is not None:
            self._workplace.close()
            self._workplace = None
        if self._empty >= 0:
            os.close(self._empty)
            self._empty = -1
        if self._tree is not None:
            self._tree.close()
            self._tree = None
        self._facts = None

    async def _ready(self) -> HostFacts:
        async with self._starting:
            if self._facts is None:
                self._facts = await asyncio.to_thread(self._find_facts)
            return self._facts

    def _find_facts(self) -> HostFacts:
        image = find_image(self._settings)
        monitor = probing.choose_monitor(self._settings, image)
        self._tree = cgroups.find_tree()
        if self._tree is None and self._settings.require_cgroup:
            raise SandboxUnavailable(
                "no cgroup with the memory and pids controllers may be made here",
                where="cgroup",
                remedy="run as root, or unset SWARM_REQUIRE_CGROUP",
            )
        self._workplace = Workplace(self._run_folder)
        self._empty = empty_disk(DISK_BYTES)
        return HostFacts(image, monitor)

    async def _prepare(self, request: SandboxRequest, *, is_ahead: bool) -> MicrovmSandbox:
        facts = await self._ready()
        _check_environment(request.program, facts.image)
        assert self._workplace is not None
        builds = MachinePlan(
            facts.image,
            self._workplace,
            machine_bytes(request.limits),
            agent=self._empty,
            package=self._empty,
            inputs=self._empty,
            locks=self._locks,
        )
        async with self._builder.use(request, facts.monitor, builds) as template:
            if is_ahead and os.geteuid() == 0:  # Who is not root could not undo it.
                builds = replace(builds, niceness=_AHEAD_NICENESS)
            sandbox = await self._restore(request, facts, builds, template)
        if is_ahead:
            sandbox.rehearse()
        sandbox.start()
        return sandbox

    async def _restore(
        self, request: SandboxRequest, facts: HostFacts, builds: MachinePlan, template: Template
    ) -> MicrovmSandbox:
        assert self._workplace is not None
        sandbox_id = new_id("sbx")
        folder = self._workplace.make(sandbox_id)
        (folder / "outputs").mkdir()
        group = None
        if self._tree is not None:
            group = self._tree.create(sandbox_id, _monitor_limits(request.limits))
        try:
            machine = await self._start(request, facts, builds, template, folder, group)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            if group is not None:
                group.remove()
            raise
        parts = Parts(
            request=request,
            machine=machine,
            folder=folder,
            outputs=os.open(folder / "outputs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),
            layers=self._layers(facts),
            variables=plan.environment(request, guest_facts(facts.image)),
            group=group,
            niceness=builds.niceness,
        )
        if request.network:
            policy = EgressPolicy(request.network, self._settings.allowed_private_networks)
            parts.relay = ProxyRelay(machine.stream, EgressProxy(policy))
        sandbox = MicrovmSandbox(sandbox_id, parts, self._sandboxes.discard)
        self._sandboxes.add(sandbox)
        return sandbox

    async def _start(
        self,
        request: SandboxRequest,
        facts: HostFacts,
        builds: MachinePlan,
        template: Template,
        folder: Path,
        group: Cgroup | None,
    ) -> Machine:
        inputs = self._empty
        if request.inputs:
            await asyncio.to_thread(_write_inputs, request, folder / "inputs")
            inputs = os.open(folder / "inputs", os.O_RDONLY | os.O_CLOEXEC)
        try:
            machine_plan = replace(
                builds,
                agent=template.agent,
                package=template.package,
                inputs=inputs,
                cgroup_files=() if group is None else group.process_files,
            )
            return await facts.monitor.restore(machine_plan, template)
        finally:
            if inputs != self._empty:
                os.close(inputs)

    def _layers(self, facts: HostFacts) -> tuple[str, ...]:
        layers = [facts.monitor.layer, "no-network-device", "no-new-privileges", "monitor-seccomp"]
        if os.geteuid() == 0:
            layers.append("unprivileged-user")
        if self._tree is not None:
            layers.append(self._tree.layer)
        return tuple(layers)


def _write_inputs(request: SandboxRequest, target: Path) -> None:
    sources = {mount.name: mount.source for mount in request.inputs}
    write_squashfs(sources, target, owner=_OWNER, compress=False)
    os.truncate(target, DISK_BYTES)


def _monitor_limits(limits: Limits) -> Limits:
    size = machine_bytes(limits) + _MONITOR_BYTES
    return replace(limits, memory_bytes=size, processes=_MONITOR_PROCESSES)


def _check_environment(program: Program, image: Image) -> None:
    """A Python environment was installed for the host's Python; the guest's must be the same."""
    host = ".".join(python_program().version.split(".")[:2])
    if program.runtime != "python" or program.environment is None or host == image.python_version:
        return
    raise SandboxUnavailable(
        f"the package's dependencies are installed for Python {host}, and virtual machines have "
        f"Python {image.python_version}",
        where="microvm",
        remedy=f"run Swarm on Python {image.python_version}, or use `--isolation sandbox`",
    )
