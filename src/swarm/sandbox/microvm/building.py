"""Builds snapshots: of a machine that has booted, and from it, of one with a package.

Booting takes seconds under software emulation, so it is done once for each size of machine. What
waits then knows no package; a package's machine is restored from it, gets the package's disk, makes
its handler's process, and is put into a snapshot itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.json import JsonObject, JsonValue, dump_bytes
from swarm.kernel.settings import Settings
from swarm.sandbox import microvm
from swarm.sandbox.guests import GUEST, guest_variables, node_options
from swarm.sandbox.interpreters import Interpreter
from swarm.sandbox.linux import plan
from swarm.sandbox.microvm.agent.handler import WIRE_DESCRIPTOR
from swarm.sandbox.microvm.image import Image
from swarm.sandbox.microvm.monitors import Machine, MachinePlan, Monitor
from swarm.sandbox.microvm.snapshots import (
    AGENT_DISK,
    MEBIBYTE,
    PACKAGE_DISK,
    Snapshots,
    Template,
)
from swarm.sandbox.microvm.squashfs import write_squashfs
from swarm.sandbox.ports import CallContext, Limits, Program, SandboxRequest
from swarm.sandbox.wire import PROTOCOL

AGENT: Final = Path(microvm.__file__).parent / "agent"
DISK_BYTES: Final = 1 << 38
"""Size of the disks that a machine gets after it has booted; files on them are as large as they
are."""
_OVERHEAD_BYTES: Final = 160 * MEBIBYTE
"""Memory of a machine beyond its handler's: the kernel, the agent, what both have read."""
_LEAST_BYTES: Final = 128 * MEBIBYTE
_REHEARSALS: Final = {"python": 10, "command": 2}
"""Python makes code special for what it meets after 8 calls."""
_HANDLER_LIMITS: Final = {"CORE": 0, "NOFILE": 4096}
_BUILDS: Final = 5
"""Builds by other processes that are waited for, each as long as a boot may take."""
_BASES_SHARE: Final = 4
"""What part of the disk is for machines that have no package yet: a fourth."""


class SnapshotBuilder:
    """The snapshots of one host.

    Args:
        settings: how much snapshots may take, and how long a boot.
        folder: of all snapshots.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._seconds = settings.microvm_boot_seconds
        disk, patience = settings.microvm_snapshots_mb * MEBIBYTE, _BUILDS * self._seconds
        self._bases = Snapshots(folder / "bases", disk // _BASES_SHARE, 0, patience)
        self._packages = Snapshots(
            folder / "packages",
            disk - disk // _BASES_SHARE,
            settings.microvm_resident_mb * MEBIBYTE,
            patience,
        )

    def use(
        self, request: SandboxRequest, monitor: Monitor, machine_plan: MachinePlan
    ) -> AbstractAsyncContextManager[Template]:
        """The snapshot of a request's package, built where there is none yet.

        Args:
            request: names the package and its limits.
            monitor: builds it.
            machine_plan: of a machine that builds it: its size, its image, and empty disks.
        """
        identity = _identity(monitor, machine_plan)

        async def build(folder: Path) -> None:
            await self._build(request, monitor, machine_plan, folder, identity)

        return self._packages.use(_package_key(identity, request, machine_plan.image), build)

    def close(self) -> None:
        """Give up what is held in memory; what is on disk stays."""
        self._bases.close()
        self._packages.close()

    async def _build(
        self,
        request: SandboxRequest,
        monitor: Monitor,
        machine_plan: MachinePlan,
        folder: Path,
        identity: str,
    ) -> None:
        """Give a machine that has booted the package, and put it into a snapshot."""
        disk = folder / PACKAGE_DISK
        await asyncio.to_thread(write_disk, _package_sources(request.program), disk)

        async def build_base(target: Path) -> None:
            await self._boot(monitor, machine_plan, target)

        with disk.open("rb") as file:
            async with self._bases.use(identity, build_base) as base:
                own = replace(machine_plan, agent=base.agent, package=file.fileno())
                machine = await monitor.restore(own, base, is_kept=True)
            (folder / AGENT_DISK).write_bytes((base.folder / AGENT_DISK).read_bytes())
            await self._finish(monitor, machine, _boot_message(request, machine_plan.image), folder)

    async def _boot(self, monitor: Monitor, machine_plan: MachinePlan, folder: Path) -> None:
        """Boot a machine and put it into a snapshot."""
        disk = folder / AGENT_DISK
        await asyncio.to_thread(write_squashfs, {"agent": AGENT, "guest": GUEST}, disk)
        with disk.open("rb") as file:
            machine = await monitor.boot(replace(machine_plan, agent=file.fileno()))
            message: JsonObject = {"op": "preload", "modules": list(plan.PRELOAD)}
            await self._finish(monitor, machine, message, folder)

    async def _finish(
        self, monitor: Monitor, machine: Machine, message: JsonObject, folder: Path
    ) -> None:
        """Tell a machine what to do, wait until it is ready, and put it into a snapshot."""
        try:
            machine.stream.send_control(**message)
            try:
                async with asyncio.timeout(self._seconds):
                    answer = await machine.stream.message()
            except (TimeoutError, EOFError) as error:
                why = str(error) or f"it was not ready within {self._seconds:g} seconds"
                raise SandboxUnavailable(
                    f"a virtual machine does not boot: {why}\n{machine.console_text()}".rstrip(),
                    where="microvm",
                    remedy="`swarm sandbox build-image`; on a slow machine, raise "
                    "SWARM_MICROVM_BOOT_SECONDS",
                ) from None
            assert answer["event"] == "ready"
            await monitor.snapshot(machine, folder)
        finally:
            await machine.kill()


def write_disk(sources: Mapping[str, Path], target: Path) -> None:
    """Write the content of a disk that a machine gets after it has booted."""
    write_squashfs(sources, target)
    os.truncate(target, DISK_BYTES)


def guest_facts(image: Image) -> plan.HostFacts:
    """What a machine has, where a sandbox has what its host has."""
    python = Interpreter(Path("/usr/bin/python3"), None, image.python_version)
    return plan.HostFacts(
        python=python,
        node=None,
        uids=None,
        masked=(),
        has_cgroup=True,
        counts_processes=False,
    )


def machine_bytes(limits: Limits) -> int:
    """Memory of a machine: the handler's, in steps so that few sizes of machine boot, and more."""
    size = _LEAST_BYTES
    while size < limits.memory_bytes:
        size *= 2
    return size + _OVERHEAD_BYTES


def _package_sources(program: Program) -> dict[str, Path]:
    sources = {"package": program.package}
    if program.environment is not None:
        sources["environment"] = program.environment
    missing = [path for path in sources.values() if not path.is_dir()]
    if missing:
        raise SandboxUnavailable(
            "a folder that the machine shall have is not there",
            where=str(missing[0]),
            remedy="register the agent again",
        )
    return sources


def _boot_message(request: SandboxRequest, image: Image) -> JsonObject:
    """Tells a machine that has booted what it is for."""
    limits, runtime = request.limits, request.program.runtime
    return {
        "op": "boot",
        "runtime": runtime,
        **_guest_limits(request),
        "resource_limits": dict(_HANDLER_LIMITS),
        "environment": _boot_variables(request, image),
        "node_options": list(node_options(limits)) if runtime == "node" else [],
        **_rehearsal(request),
    }


def _guest_limits(request: SandboxRequest) -> dict[str, JsonValue]:
    """What is fixed when a machine boots."""
    limits = request.limits
    return {
        "memory_bytes": limits.memory_bytes,
        "processes": limits.processes,
        "work_bytes": limits.work_bytes,
        "work_files": limits.work_files,
        "output_files_bytes": limits.output_files_bytes,
        "output_files": limits.output_files,
        "proxy_port": plan.PROXY_PORT if request.network else 0,
    }


def _boot_variables(request: SandboxRequest, image: Image) -> dict[str, JsonValue]:
    """The handler's environment as far as it is the package's; its caller's part comes later."""
    return dict(plan.environment(replace(request, environment={}), guest_facts(image)))


def _rehearsal(request: SandboxRequest) -> dict[str, JsonValue]:
    """What a machine does before its snapshot, so that after a restore nothing happens first.

    A call of no package's runs through all that a package's will. Node's guest has loaded by then,
    and goes on from where it waits once only.
    """
    runtime = request.program.runtime
    if runtime == "node":
        return {"rehearsals": 0, "rehearsal": {}}
    rehearsed = Program(runtime, ("/bin/true",), Path("/"), "")
    if runtime == "python":
        rehearsed = Program(runtime, ("rehearsal.py",), Path("/"), "")
    variables = guest_variables(replace(request, program=rehearsed, network=()), WIRE_DESCRIPTOR)
    folders = {"SWARM_PACKAGE": "/swarm/agent", "SWARM_OUTPUTS": "/outputs"}
    context = CallContext("inv_none", "key_none", "none", "0.0.0").as_json()
    params = {"protocol": PROTOCOL, "entry": [], "inputs": {"none": None}, "context": context}
    return {
        "rehearsals": _REHEARSALS[runtime],
        "rehearsal": {
            "environment": {**variables, **folders, "PATH": "/usr/bin:/bin"},
            "call": {"jsonrpc": "2.0", "id": 1, "method": "call", "params": params},
        },
    }


def _identity(monitor: Monitor, machine_plan: MachinePlan) -> str:
    """Changes whenever a snapshot made before would not fit any more."""
    subject: list[JsonValue] = [
        machine_plan.image.digest,
        machine_plan.memory_bytes,
        monitor.layer,
        *monitor.identity(),
    ]
    digest = hashlib.sha256(dump_bytes(subject))
    for folder in (AGENT, GUEST):
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".mjs"):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _package_key(identity: str, request: SandboxRequest, image: Image) -> str:
    program = request.program
    subject: JsonObject = {
        "host": identity,
        "runtime": program.runtime,
        "package": program.digest,
        "environment": None if program.environment is None else str(program.environment),
        "limits": _guest_limits(request),
        "variables": _boot_variables(request, image),
    }
    return hashlib.sha256(dump_bytes(subject)).hexdigest()
