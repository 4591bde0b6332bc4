"""Isolation level ``microvm``: each invocation in a machine restored from a snapshot."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.home import Home
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonValue, dump_bytes
from swarm.kernel.settings import Settings
from swarm.sandbox import microvm
from swarm.sandbox.egress.policy import EgressPolicy
from swarm.sandbox.egress.proxy import EgressProxy
from swarm.sandbox.guests import GUEST, guest_variables, node_options
from swarm.sandbox.interpreters import Interpreter, python_program
from swarm.sandbox.linux import cgroups, plan
from swarm.sandbox.linux.cgroups import Cgroup
from swarm.sandbox.microvm import probing, qemu, tsc
from swarm.sandbox.microvm.accelerators import Accelerator
from swarm.sandbox.microvm.agent.handler import WIRE_DESCRIPTOR
from swarm.sandbox.microvm.image import Image, find_image
from swarm.sandbox.microvm.qemu import MachinePlan, QemuMachine
from swarm.sandbox.microvm.qemu_command import Descriptors, command_line
from swarm.sandbox.microvm.sandbox import MicrovmSandbox, Parts
from swarm.sandbox.microvm.snapshots import (
    MEBIBYTE,
    Snapshots,
    Template,
    empty_disk,
    memory_file,
    save_memory,
)
from swarm.sandbox.microvm.squashfs import write_squashfs
from swarm.sandbox.microvm.warm import WarmMachines
from swarm.sandbox.microvm.wiring import ProxyRelay
from swarm.sandbox.microvm.workplace import Workplace
from swarm.sandbox.ports import Limits, Program, Sandbox, SandboxRequest

AGENT: Final = Path(microvm.__file__).parent / "agent"
_OVERHEAD_BYTES: Final = 160 * MEBIBYTE
"""Memory of a machine beyond its handler's: the kernel, the agent, what both have read."""
_MONITOR_BYTES: Final = 256 * MEBIBYTE
"""Memory that QEMU may take beyond the machine's."""
_MONITOR_PROCESSES: Final = 32
_INPUTS_BYTES: Final = 1 << 38
"""Size of the inputs' disk, fixed when a machine boots; files on it are as large as they are."""
_HANDLER_LIMITS: Final = {"CORE": 0, "NOFILE": 4096}
_OWNER: Final = plan.INSIDE_ID


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What is found out once."""

    image: Image
    accelerator: Accelerator
    identity: str
    """Changes whenever a snapshot made before would not fit any more."""


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
        self._snapshots = Snapshots(
            home.cache / "microvm" / "snapshots",
            settings.microvm_snapshots_mb * MEBIBYTE,
            settings.microvm_resident_mb * MEBIBYTE,
        )
        self._starting = asyncio.Lock()
        self._facts: HostFacts | None = None
        self._tree: cgroups.CgroupTree | None = None
        self._workplace: Workplace | None = None
        self._no_inputs = -1
        self._sandboxes: set[MicrovmSandbox] = set()
        self._warm = WarmMachines(
            settings.microvm_warm_machines, settings.microvm_warm_seconds, self._make
        )

    async def prepare(self, request: SandboxRequest) -> Sandbox:
        """Restore a machine; see :class:`swarm.sandbox.ports.SandboxBackend`.

        The first time for a package, its machine boots and is put into a snapshot.
        """
        sandbox = await self._warm.take(request) or await self._make(request)
        sandbox.when_gone(lambda: self._warm.refill(request))
        return sandbox

    async def _make(self, request: SandboxRequest) -> MicrovmSandbox:
        facts = await self._ready()
        _check_environment(request.program, facts.image)
        async with self._snapshots.use(
            _snapshot_key(request, facts), lambda folder: self._build(request, facts, folder)
        ) as template:
            return await self._restore(request, facts, template)

    @property
    def waiting(self) -> int:
        """How many machines wait, restored ahead."""
        return self._warm.waiting

    async def close(self) -> None:
        """Destroy every sandbox; snapshots on disk stay. Safe to call twice."""
        await self._warm.close()
        for sandbox in list(self._sandboxes):
            await sandbox.destroy()
        self._snapshots.close()
        if self._workplace is not None:
            self._workplace.close()
            self._workplace = None
        if self._no_inputs >= 0:
            os.close(self._no_inputs)
            self._no_inputs = -1
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
        version = probing.qemu_version()
        image = find_image(self._settings)
        accelerator = probing.choose_accelerator(self._settings, image, version)
        self._workplace = Workplace(self._run_folder)
        self._no_inputs = empty_disk(_INPUTS_BYTES)
        self._tree = cgroups.find_tree()
        if self._tree is None and self._settings.require_cgroup:
            raise SandboxUnavailable(
                "no cgroup with the memory and pids controllers may be made here",
                where="cgroup",
                remedy="run as root, or unset SWARM_REQUIRE_CGROUP",
            )
        return HostFacts(image, accelerator, _identity(image, accelerator, version))

    async def _build(self, request: SandboxRequest, facts: HostFacts, folder: Path) -> None:
        """Boot a machine with the package and put it into a snapshot."""
        package = folder / "package.squashfs"
        await asyncio.to_thread(write_squashfs, _package_sources(request.program), package)
        size = _machine_bytes(request.limits)
        memory = memory_file(size)
        try:
            with package.open("rb") as file:
                machine = await qemu.boot(
                    MachinePlan(
                        facts.accelerator,
                        facts.image,
                        file.fileno(),
                        memory,
                        size,
                        self._no_inputs,
                    )
                )
                try:
                    await _become_ready(machine, request, self._settings.microvm_boot_seconds)
                    with (folder / "state").open("w+b") as state:
                        await qemu.snapshot(machine, state)
                finally:
                    await machine.kill()
            await asyncio.to_thread(save_memory, memory, folder / "memory")
        finally:
            os.close(memory)

    async def _restore(
        self, request: SandboxRequest, facts: HostFacts, template: Template
    ) -> MicrovmSandbox:
        assert self._workplace is not None
        sandbox_id = new_id("sbx")
        folder = self._workplace.make(sandbox_id)
        (folder / "outputs").mkdir()
        group = None
        if self._tree is not None:
            group = self._tree.create(sandbox_id, _monitor_limits(request.limits))
        machine = await self._start(request, facts, template, folder, group)
        parts = Parts(
            request=request,
            machine=machine,
            folder=folder,
            outputs=os.open(folder / "outputs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),
            layers=self._layers(facts),
            variables=plan.environment(request, _guest_facts(facts.image)),
            group=group,
        )
        if request.network:
            policy = EgressPolicy(request.network, self._settings.allowed_private_networks)
            parts.relay = ProxyRelay(machine.stream, EgressProxy(policy))
        sandbox = MicrovmSandbox(sandbox_id, parts)
        sandbox.when_gone(lambda: self._sandboxes.discard(sandbox))
        self._sandboxes.add(sandbox)
        try:
            await sandbox.become_ready()
        except BaseException:
            await sandbox.destroy()
            raise
        return sandbox

    async def _start(
        self,
        request: SandboxRequest,
        facts: HostFacts,
        template: Template,
        folder: Path,
        group: Cgroup | None,
    ) -> QemuMachine:
        flags = os.O_RDONLY | os.O_CLOEXEC
        inputs = self._no_inputs
        # Reopened: whoever reads it has an offset of his own.
        state = os.open(f"/proc/self/fd/{template.state}", flags)
        try:
            if request.inputs:
                await asyncio.to_thread(_write_inputs, request, folder / "inputs")
                inputs = os.open(folder / "inputs", flags)
            machine_plan = MachinePlan(
                facts.accelerator,
                facts.image,
                template.package,
                template.memory,
                template.memory_bytes,
                inputs,
                () if group is None else group.process_files,
                self._locks,
            )
            return await qemu.restore(machine_plan, state)
        finally:
            os.close(state)
            if inputs != self._no_inputs:
                os.close(inputs)

    def _layers(self, facts: HostFacts) -> tuple[str, ...]:
        layers = [facts.accelerator.layer, "no-network-device", "no-new-privileges", "qemu-seccomp"]
        if os.geteuid() == 0:
            layers.append("unprivileged-user")
        if self._tree is not None:
            layers.append(self._tree.layer)
        return tuple(layers)


async def _become_ready(machine: QemuMachine, request: SandboxRequest, seconds: float) -> None:
    """Tell a booting machine what it is for, and wait until it is ready for its snapshot."""
    limits, runtime = request.limits, request.program.runtime
    machine.stream.send_control(
        op="boot",
        runtime=runtime,
        **_guest_limits(request),
        preload=list(plan.PRELOAD),
        resource_limits=dict(_HANDLER_LIMITS),
        environment=_boot_variables(request),
        node_options=node_options(limits) if runtime == "node" else [],
    )
    try:
        async with asyncio.timeout(seconds):
            message = await machine.stream.message()
    except (TimeoutError, EOFError) as error:
        why = str(error) or f"it was not ready within {seconds:g} seconds"
        raise SandboxUnavailable(
            f"a virtual machine does not boot: {why}\n{machine.console_text()}".rstrip(),
            where="microvm",
            remedy="`swarm sandbox build-image`; on a slow machine, raise "
            "SWARM_MICROVM_BOOT_SECONDS",
        ) from None
    assert message["event"] == "ready"


def _package_sources(program: Program) -> dict[str, Path]:
    sources = {"agent": AGENT, "guest": GUEST, "package": program.package}
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


def _write_inputs(request: SandboxRequest, target: Path) -> None:
    sources = {mount.name: mount.source for mount in request.inputs}
    write_squashfs(sources, target, owner=_OWNER, compress=False)
    os.truncate(target, _INPUTS_BYTES)


def _machine_bytes(limits: Limits) -> int:
    whole = -(-limits.memory_bytes // MEBIBYTE) * MEBIBYTE
    return whole + _OVERHEAD_BYTES


def _monitor_limits(limits: Limits) -> Limits:
    size = _machine_bytes(limits) + _MONITOR_BYTES
    return replace(limits, memory_bytes=size, processes=_MONITOR_PROCESSES)


def _guest_facts(image: Image) -> plan.HostFacts:
    python = Interpreter(Path("/usr/bin/python3"), None, image.python_version)
    return plan.HostFacts(
        python=python,
        node=None,
        uids=None,
        masked=(),
        has_cgroup=True,
        counts_processes=False,
    )


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


def _snapshot_key(request: SandboxRequest, facts: HostFacts) -> str:
    program = request.program
    subject = {
        "host": facts.identity,
        "runtime": program.runtime,
        "package": program.digest,
        "environment": None if program.environment is None else str(program.environment),
        "limits": _guest_limits(request),
        "variables": _boot_variables(request),
    }
    return hashlib.sha256(dump_bytes(subject)).hexdigest()


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


def _boot_variables(request: SandboxRequest) -> dict[str, JsonValue]:
    """What Node's guest reads while it is loaded, before the snapshot."""
    if request.program.runtime != "node":
        return {}
    folders = {"SWARM_PACKAGE": "/package", "SWARM_OUTPUTS": "/outputs"}
    return {**guest_variables(request, WIRE_DESCRIPTOR), **folders}


def _identity(image: Image, accelerator: Accelerator, version: str) -> str:
    devices = command_line(accelerator, Descriptors(*range(6)), 0, 0)
    digest = hashlib.sha256(dump_bytes([image.digest, str(accelerator), version, devices]))
    for folder in (AGENT, GUEST):
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".mjs"):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update(_processor(accelerator).encode())
    return digest.hexdigest()


def _processor(accelerator: Accelerator) -> str:
    """What a snapshot depends on of the processor."""
    if accelerator is Accelerator.TCG:
        return f"{tsc.frequency_khz() / 20_000:.0f}"
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    kept = ("model name", "flags", "microcode", "stepping")
    return "\n".join(line for line in lines if line.startswith(kept))
