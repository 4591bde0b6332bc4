"""The QEMU driver: boots a machine, puts it into a snapshot, restores it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from swarm.kernel.errors import SandboxUnavailable
from swarm.sandbox.microvm import tsc
from swarm.sandbox.microvm.accelerators import Accelerator
from swarm.sandbox.microvm.monitors import Machine, MachinePlan
from swarm.sandbox.microvm.processes import MachineProcess, start_process
from swarm.sandbox.microvm.qemu_command import Boot, Descriptors, command_line
from swarm.sandbox.microvm.qmp import Qmp
from swarm.sandbox.microvm.snapshots import (
    MEMORY,
    STATE,
    Template,
    copy_memory,
    memory_file,
    save_memory,
)
from swarm.sandbox.microvm.stream import GuestStream

_CONSOLE_BYTES: Final = 2000


@dataclass(slots=True)
class QemuMachine:
    """A machine and the connections to it."""

    process: MachineProcess
    stream: GuestStream
    qmp: Qmp | None
    console: IO[Any] | None
    memory: int
    """Descriptor of its memory, -1 when that is a snapshot's."""

    async def kill(self) -> None:
        """End it. Safe to call twice, and while it is being killed."""
        self.stream.close()
        await self.process.kill()
        if self.qmp is not None:
            self.qmp.close()
            self.qmp = None
        if self.console is not None:
            self.console.close()
            self.console = None
        if self.memory >= 0:
            os.close(self.memory)
            self.memory = -1

    def console_text(self) -> str:
        """The end of what a booting machine and its QEMU said."""
        if self.console is None:
            return ""
        size = self.console.seek(0, os.SEEK_END)
        self.console.seek(max(size - _CONSOLE_BYTES, 0))
        text: str = self.console.read().decode("utf-8", "replace").strip()
        return text


class QemuMonitor:
    """See :class:`swarm.sandbox.microvm.monitors.Monitor`.

    Args:
        accelerator: chosen by a probe.
        version: what QEMU says of itself.
    """

    def __init__(self, accelerator: Accelerator, version: str) -> None:
        self._accelerator = accelerator
        self._version = version

    @property
    def layer(self) -> str:
        return self._accelerator.layer

    def identity(self) -> list[str]:
        boot = Boot(kernel=0, initramfs=0, tsc_khz=0)
        devices = command_line(self._accelerator, Descriptors(*range(7)), 0, boot)
        return [self._version, *devices, _processor(self._accelerator)]

    async def boot(self, plan: MachinePlan) -> QemuMachine:
        with (
            plan.image.kernel.open("rb") as kernel,
            plan.image.initramfs.open("rb") as initramfs,
            _closing(memory_file(plan.memory_bytes)) as memory,
        ):
            boot = Boot(kernel.fileno(), initramfs.fileno(), tsc.frequency_khz())
            return await self._start(plan, memory, boot, is_owned=True)

    async def snapshot(self, machine: Machine, folder: Path) -> None:
        assert isinstance(machine, QemuMachine)
        qmp = machine.qmp
        assert qmp is not None
        await qmp.execute("stop")
        await _leave_memory_out(qmp)
        with (folder / STATE).open("xb") as state:
            await qmp.execute("getfd", state.fileno(), fdname="state")
            await qmp.execute("migrate", uri="fd:state")
            await qmp.wait_migrated()
        await asyncio.to_thread(save_memory, machine.memory, folder / MEMORY)

    async def restore(
        self, plan: MachinePlan, template: Template, *, is_kept: bool = False
    ) -> QemuMachine:
        if is_kept:
            with _closing(await asyncio.to_thread(copy_memory, template.memory)) as memory:
                machine = await self._start(plan, memory, None, is_owned=True)
        else:
            machine = await self._start(plan, template.memory, None, is_owned=False)
        # Reopened: whoever reads it has an offset of his own.
        state = os.open(f"/proc/self/fd/{template.state}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            qmp = machine.qmp
            assert qmp is not None
            await _leave_memory_out(qmp)
            await qmp.execute("getfd", state, fdname="state")
            await qmp.execute("migrate-incoming", uri="fd:state")
            await qmp.wait_migrated()
            await qmp.execute("cont")
        except SandboxUnavailable as error:
            raise await _explained(error, machine) from None
        except BaseException:
            await machine.kill()
            raise
        finally:
            os.close(state)
        return machine

    async def _start(
        self, plan: MachinePlan, memory: int, boot: Boot | None, *, is_owned: bool
    ) -> QemuMachine:
        """Start QEMU. Memory that is the machine's own is written to, a snapshot's is copied."""
        console = tempfile.TemporaryFile()  # noqa: SIM115
        control, guest_control = socket.socketpair()
        stream, guest_stream = socket.socketpair()
        with ExitStack() as stack:
            stack.enter_context(guest_control)
            stack.enter_context(guest_stream)
            root = stack.enter_context(plan.image.root.open("rb"))
            descriptors = Descriptors(
                memory,
                root.fileno(),
                plan.agent,
                plan.package,
                plan.inputs,
                guest_stream.fileno(),
                guest_control.fileno(),
                is_memory_shared=is_owned,
            )
            command = command_line(self._accelerator, descriptors, plan.memory_bytes, boot)
            inherited = [*descriptors.numbers(), *plan.locks]
            if boot is not None:
                inherited += [boot.kernel, boot.initramfs]
            process = start_process(
                command, inherited, console, plan.cgroup_files, niceness=plan.niceness
            )
        process.exited.add_done_callback(lambda _: _end_of_file(control, stream))
        loop = asyncio.get_running_loop()
        _, guest = await loop.create_unix_connection(GuestStream, sock=stream)
        machine = QemuMachine(process, guest, None, console, os.dup(memory) if is_owned else -1)
        try:
            machine.qmp = await Qmp.open(control)
        except SandboxUnavailable as error:
            control.close()
            raise await _explained(error, machine) from None
        except BaseException:
            control.close()
            await machine.kill()
            raise
        return machine


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _leave_memory_out(qmp: Qmp) -> None:
    """The memory file has it: shared by a machine to be kept, else mapped privately."""
    capabilities = [
        {"capability": "x-ignore-shared", "state": True},
        {"capability": "events", "state": True},
    ]
    await qmp.execute("migrate-set-capabilities", capabilities=capabilities)


async def _explained(error: SandboxUnavailable, machine: QemuMachine) -> SandboxUnavailable:
    """End a machine that failed. What its QEMU said tells more than that it is gone."""
    text = machine.console_text()
    await machine.kill()
    if not text:
        return error
    return SandboxUnavailable(f"QEMU failed: {text}", where="qemu", remedy="run `swarm doctor`")


def _end_of_file(*sockets: socket.socket) -> None:
    """Let readers come to an end though somebody may have inherited the other ends."""
    for end in sockets:
        with contextlib.suppress(OSError):  # Closed already.
            end.shutdown(socket.SHUT_RDWR)


def _processor(accelerator: Accelerator) -> str:
    """What a snapshot depends on of the processor."""
    if accelerator is Accelerator.TCG:
        return f"{tsc.frequency_khz() / 20_000:.0f}"
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    kept = ("model name", "flags", "microcode", "stepping")
    return "\n".join(line for line in lines if line.startswith(kept))
