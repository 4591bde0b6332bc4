"""The Firecracker driver: the same machines as QEMU's, on hosts that have Firecracker and KVM.

Its channel is vsock instead of virtio-serial; after a restore the connection that the snapshot
knew is gone, so the agent accepts a new one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.ids import new_id
from swarm.kernel.json import dump_bytes
from swarm.sandbox.microvm import firecracker_api as api
from swarm.sandbox.microvm.monitors import Machine, MachinePlan
from swarm.sandbox.microvm.processes import MachineProcess, start_process
from swarm.sandbox.microvm.snapshots import MEBIBYTE, MEMORY, STATE, Template, save_memory
from swarm.sandbox.microvm.stream import GuestStream

PROGRAM: Final = "firecracker"
_SECONDS: Final = 10.0
_AGENT_SECONDS: Final = 60.0
_SNAPSHOT_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 0.005
_CONSOLE_BYTES: Final = 2000
_KVM: Final = "/dev/kvm"


@dataclass(slots=True)
class FirecrackerMachine:
    """A machine and the connection to its agent."""

    process: MachineProcess
    stream: GuestStream
    folder: Path
    console: IO[Any] | None

    async def kill(self) -> None:
        """End it. Safe to call twice, and while it is being killed."""
        self.stream.close()
        await self.process.kill()
        if self.console is not None:
            self.console.close()
            self.console = None
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def console_text(self) -> str:
        return "" if self.console is None else _end_of(self.console)


class FirecrackerMonitor:
    """See :class:`swarm.sandbox.microvm.monitors.Monitor`.

    Raises:
        SandboxUnavailable: Firecracker is missing, or KVM is, without which it cannot run.
    """

    layer = "microvm-firecracker"

    def __init__(self) -> None:
        self._program = find_firecracker()
        self.version = _version(self._program)
        """What Firecracker says of itself."""

    def identity(self) -> list[str]:
        calls = [*api.boot_calls(0), *api.restore_calls()]
        return [self.version, *(f"{call.path} {call.body}" for call in calls)]

    async def boot(self, plan: MachinePlan) -> FirecrackerMachine:
        with plan.image.vmlinux.open("rb") as kernel, plan.image.initramfs.open("rb") as initramfs:
            files = {api.KERNEL: kernel.fileno(), api.INITRAMFS: initramfs.fileno()}
            return await self._start(plan, files, api.boot_calls(plan.memory_bytes // MEBIBYTE))

    async def snapshot(self, machine: Machine, folder: Path) -> None:
        assert isinstance(machine, FirecrackerMachine)
        await _ask(machine.folder, api.snapshot_calls(), _SNAPSHOT_SECONDS)
        shutil.copyfile(machine.folder / api.STATE, folder / STATE)
        with (machine.folder / api.MEMORY).open("rb") as memory:
            await asyncio.to_thread(save_memory, memory.fileno(), folder / MEMORY)

    async def restore(
        self, plan: MachinePlan, template: Template, *, is_kept: bool = False
    ) -> FirecrackerMachine:
        files = {api.MEMORY: template.memory, api.STATE: template.state}
        machine = await self._start(plan, files, api.restore_calls())
        if is_kept:  # It writes new ones.
            for name in files:
                (machine.folder / name).unlink()
        return machine

    async def _start(
        self, plan: MachinePlan, files: Mapping[str, int], calls: Sequence[api.ApiCall]
    ) -> FirecrackerMachine:
        folder = plan.workplace.make(new_id("fcr"))
        # It makes its sockets here as an unprivileged user; nobody else gets past the parent.
        folder.chmod(0o777)
        console = tempfile.TemporaryFile()  # noqa: SIM115
        with plan.image.root.open("rb") as root:
            drives = (root.fileno(), plan.agent, plan.package, plan.inputs)
            inherited = {**files, **dict(zip(api.DRIVES, drives, strict=True))}
            for name, descriptor in inherited.items():
                (folder / name).symlink_to(f"/proc/self/fd/{descriptor}")
            process = start_process(
                [self._program, "--api-sock", api.API_SOCKET, "--level", "Error"],
                [*inherited.values(), *plan.locks],
                console,
                plan.cgroup_files,
                folder=folder,
                niceness=plan.niceness,
            )
            try:
                await _ask(folder, calls)
                stream = await _connect_agent(folder)
            except BaseException as error:
                text = _end_of(console)
                await process.kill()
                console.close()
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                if isinstance(error, SandboxUnavailable) and text:
                    raise _failed(f"{error.message}\n{text}") from None
                raise
        process.exited.add_done_callback(lambda _: stream.end())
        return FirecrackerMachine(process, stream, folder, console)


def can_run() -> bool:
    """Whether Firecracker is installed, and KVM may be used."""
    return shutil.which(PROGRAM) is not None and os.access(_KVM, os.R_OK | os.W_OK)


def find_firecracker() -> str:
    """Firecracker's path.

    Raises:
        SandboxUnavailable: it is missing, or KVM is, without which it cannot run.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise SandboxUnavailable(
            "Firecracker is not installed",
            where=PROGRAM,
            remedy="put its program on the PATH, or set SWARM_MICROVM_MONITOR to qemu",
        )
    if not os.access(_KVM, os.R_OK | os.W_OK):
        raise SandboxUnavailable(
            "Firecracker needs KVM, and /dev/kvm cannot be opened",
            where=_KVM,
            remedy="set SWARM_MICROVM_MONITOR to qemu, which emulates where there is no KVM",
        )
    return found


def _version(program: str) -> str:
    """What Firecracker says of itself, in one line."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(f"it cannot be run: {error}") from None
    return done.stdout.partition("\n")[0]


def _end_of(console: IO[Any]) -> str:
    size = console.seek(0, os.SEEK_END)
    console.seek(max(size - _CONSOLE_BYTES, 0))
    text: str = console.read().decode("utf-8", "replace").strip()
    return text


async def _ask(folder: Path, calls: Sequence[api.ApiCall], seconds: float = _SECONDS) -> None:
    """Make API calls in order, on one connection.

    Raises:
        SandboxUnavailable: Firecracker refuses one, or does not answer.
    """
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _connect(folder, api.API_SOCKET)
            try:
                for call in calls:
                    await _ask_one(reader, writer, call)
            finally:
                writer.close()
    except (TimeoutError, OSError, EOFError, ValueError) as error:
        raise _failed(f"it does not answer: {error or 'time is up'}") from None


async def _ask_one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, call: api.ApiCall
) -> None:
    body = dump_bytes(call.body)
    head = (
        f"{call.method} {call.path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    said = await reader.readexactly(int(headers.get("content-length", "0")))
    status = int(lines[0].split()[1])
    if not 200 <= status < 300:
        raise _failed(f"{call.method} {call.path}: {_fault(said)}")


def _fault(said: bytes) -> str:
    try:
        document = orjson.loads(said)
    except orjson.JSONDecodeError:
        document = None
    message = document.get("fault_message") if isinstance(document, dict) else None
    return str(message or "refused without a reason")


async def _connect_agent(folder: Path) -> GuestStream:
    """The stream to the guest's agent, which listens once it is up."""
    try:
        async with asyncio.timeout(_AGENT_SECONDS):
            while True:
                reader, writer = await _connect(folder, api.VSOCK_SOCKET)
                writer.write(api.vsock_greeting())
                answer = await reader.readline()
                if answer.startswith(b"OK "):
                    break
                writer.close()  # Nobody listens yet.
                await asyncio.sleep(_RETRY_SECONDS)
    except (TimeoutError, OSError) as error:
        raise _failed(f"its guest does not answer: {error or 'time is up'}") from None
    stream = GuestStream()
    transport = writer.transport
    transport.set_protocol(stream)
    stream.connection_made(transport)
    return stream


async def _connect(folder: Path, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a socket that Firecracker makes; the path may be of any length."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                return await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/{name}")
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(_RETRY_SECONDS)
    finally:
        os.close(descriptor)


def _failed(what: str) -> SandboxUnavailable:
    return SandboxUnavailable(
        f"Firecracker failed: {what}", where=PROGRAM, remedy="run `swarm doctor`"
    )
