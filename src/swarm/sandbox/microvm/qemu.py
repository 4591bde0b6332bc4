"""The QEMU driver: boots a machine, puts it into a snapshot, restores it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from swarm.kernel.errors import SandboxUnavailable
from swarm.sandbox.microvm import tsc
from swarm.sandbox.microvm.accelerators import Accelerator
from swarm.sandbox.microvm.image import Image
from swarm.sandbox.microvm.processes import MachineProcess, start_process
from swarm.sandbox.microvm.qemu_command import Descriptors, command_line
from swarm.sandbox.microvm.qmp import Qmp
from swarm.sandbox.microvm.stream import GuestStream

_CONSOLE_BYTES: Final = 2000


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """What a machine is made of."""

    accelerator: Accelerator
    image: Image
    package: int
    """Descriptor of the package's squashfs file."""
    memory: int
    """Descriptor of a memory file; shared with the machine that boots, copied on write by one that
    is restored."""
    memory_bytes: int
    inputs: int
    """Descriptor of the inputs' disk."""
    cgroup_files: Sequence[Path] = ()
    locks: Sequence[int] = ()
    """Descriptors whose locks must not come free before the machine is gone."""


@dataclass(slots=True)
class QemuMachine:
    """A machine and the connections to it."""

    process: MachineProcess
    stream: GuestStream
    qmp: Qmp | None
    console: IO[Any] | None

    async def kill(self) -> float:
        """End it; returns the processor seconds that it took. Safe to call twice."""
        self.stream.close()
        ended = await self.process.kill()
        if self.qmp is not None:
            self.qmp.close()
            self.qmp = None
        if self.console is not None:
            self.console.close()
            self.console = None
        return ended.cpu_seconds

    def console_text(self) -> str:
        """The end of what a booting machine and its QEMU said."""
        if self.console is None:
            return ""
        size = self.console.seek(0, os.SEEK_END)
        self.console.seek(max(size - _CONSOLE_BYTES, 0))
        text: str = self.console.read().decode("utf-8", "replace").strip()
        return text


async def boot(plan: MachinePlan) -> QemuMachine:
    """Start a machine from its kernel."""
    with plan.image.kernel.open("rb") as kernel, plan.image.initramfs.open("rb") as initramfs:
        return await _start(plan, kernel.fileno(), initramfs.fileno())


async def snapshot(machine: QemuMachine, state: IO[bytes]) -> None:
    """Stop ``machine`` and write its state, but for its memory, to ``state``.

    Raises:
        SandboxUnavailable: QEMU refused.
    """
    qmp = machine.qmp
    assert qmp is not None
    await qmp.execute("stop")
    await _leave_memory_out(qmp)
    await qmp.execute("getfd", state.fileno(), fdname="state")
    await qmp.execute("migrate", uri="fd:state")
    await qmp.wait_migrated()


async def restore(plan: MachinePlan, state: int) -> QemuMachine:
    """Start a machine from a snapshot.

    Args:
        plan: its memory file is the snapshot's.
        state: descriptor of the snapshot's state; its offset is at the beginning.
    """
    machine = await _start(plan, None, None)
    try:
        qmp = machine.qmp
        assert qmp is not None
        await _leave_memory_out(qmp)
        await qmp.execute("getfd", state, fdname="state")
        await qmp.execute("migrate-incoming", uri="fd:state")
        await qmp.wait_migrated()
        await qmp.execute("cont")
    except BaseException:
        await machine.kill()
        raise
    return machine


async def _leave_memory_out(qmp: Qmp) -> None:
    """The memory file has it: shared while booting, mapped privately when restored."""
    capabilities = [
        {"capability": "x-ignore-shared", "state": True},
        {"capability": "events", "state": True},
    ]
    await qmp.execute("migrate-set-capabilities", capabilities=capabilities)


async def _start(plan: MachinePlan, kernel: int | None, initramfs: int | None) -> QemuMachine:
    console = tempfile.TemporaryFile() if kernel is not None else None  # noqa: SIM115
    control, guest_control = socket.socketpair()
    stream, guest_stream = socket.socketpair()
    with ExitStack() as stack:
        stack.enter_context(guest_control)
        stack.enter_context(guest_stream)
        root = stack.enter_context(plan.image.root.open("rb"))
        descriptors = Descriptors(
            plan.memory,
            root.fileno(),
            plan.package,
            plan.inputs,
            guest_stream.fileno(),
            guest_control.fileno(),
            kernel,
            initramfs,
        )
        command = command_line(
            plan.accelerator, descriptors, plan.memory_bytes, tsc.frequency_khz()
        )
        output = console if console is not None else subprocess.DEVNULL
        inherited = (*descriptors.numbers(), *plan.locks)
        process = start_process(command, inherited, output, plan.cgroup_files)
    loop = asyncio.get_running_loop()
    _, guest = await loop.create_unix_connection(GuestStream, sock=stream)
    machine = QemuMachine(process, guest, None, console)
    try:
        machine.qmp = await Qmp.open(control)
    except BaseException as error:
        control.close()
        text = machine.console_text()
        await machine.kill()
        if isinstance(error, SandboxUnavailable) and text:
            raise SandboxUnavailable(
                f"QEMU failed: {text}", where="qemu", remedy="run `swarm doctor`"
            ) from None
        raise
    return machine
