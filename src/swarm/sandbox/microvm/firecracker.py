"""The Firecracker driver: the same machines as QEMU's, on hosts that have Firecracker and KVM.

Its channel is vsock instead of virtio-serial; after a restore the connection that the snapshot
knew is gone, so the agent accepts a new one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.json import dump_bytes
from swarm.sandbox.microvm import firecracker_api as api
from swarm.sandbox.microvm.processes import MachineProcess, start_process
from swarm.sandbox.microvm.stream import GuestStream

PROGRAM: Final = "firecracker"
_SECONDS: Final = 10.0
_AGENT_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 0.005


@dataclass(slots=True)
class FirecrackerMachine:
    """A machine and the connection to its agent."""

    process: MachineProcess
    stream: GuestStream
    folder: Path

    async def kill(self) -> float:
        """End it; returns the processor seconds that it took. Safe to call twice."""
        self.stream.close()
        return (await self.process.kill()).cpu_seconds


def find_firecracker() -> str:
    """Firecracker's path.

    Raises:
        SandboxUnavailable: it is missing, or KVM is, without which it cannot run.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise SandboxUnavailable(
            "Firecracker is not installed", where=PROGRAM, remedy="QEMU is used instead"
        )
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise SandboxUnavailable(
            "Firecracker needs KVM, and /dev/kvm cannot be opened",
            where="/dev/kvm",
            remedy="QEMU emulates where there is no KVM",
        )
    return found


async def boot(folder: Path, files: Mapping[str, int], memory_mib: int) -> FirecrackerMachine:
    """Start a machine from its kernel.

    Args:
        folder: new, for this machine alone; below one that only we may enter.
        files: descriptors of ``kernel`` (an uncompressed ELF file), ``initramfs`` and the drives.
        memory_mib: size of the machine.
    """
    return await _start(folder, files, api.boot_calls(memory_mib))


async def snapshot(machine: FirecrackerMachine) -> None:
    """Stop ``machine``; its state and memory are then files of its folder."""
    await _ask(machine.folder, api.snapshot_calls())


async def restore(folder: Path, files: Mapping[str, int]) -> FirecrackerMachine:
    """Start a machine from a snapshot.

    Args:
        folder: as for :func:`boot`.
        files: descriptors of ``memory``, ``state`` and the drives.
    """
    return await _start(folder, files, api.restore_calls())


async def _start(
    folder: Path, files: Mapping[str, int], calls: Sequence[api.ApiCall]
) -> FirecrackerMachine:
    program = find_firecracker()
    for name, descriptor in files.items():
        (folder / name).symlink_to(f"/proc/self/fd/{descriptor}")
    # It makes its sockets here as an unprivileged user; nobody else gets past the parent.
    folder.chmod(0o777)
    command = [program, "--api-sock", api.API_SOCKET, "--level", "Error"]
    output: IO[Any] | int = subprocess.DEVNULL
    process = start_process(command, list(files.values()), output, folder=folder)
    try:
        await _ask(folder, calls)
        stream = await _connect_agent(folder)
    except BaseException:
        await process.kill()
        raise
    return FirecrackerMachine(process, stream, folder)


async def _ask(folder: Path, calls: Sequence[api.ApiCall]) -> None:
    """Make API calls in order, on one connection.

    Raises:
        SandboxUnavailable: Firecracker refuses one, or does not answer.
    """
    try:
        async with asyncio.timeout(_SECONDS):
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
