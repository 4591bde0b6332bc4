"""One call to one guest: its wire and its two output pipes, whatever sandbox it is in."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from swarm.kernel.json import JsonObject
from swarm.sandbox.log_lines import LineCutter, LogBudget
from swarm.sandbox.ports import GuestServices, Limits
from swarm.sandbox.wire import Answer, HostWire

_CHUNK: Final = 64 * 1024
_SO_PASSRIGHTS: Final = 83
_PIPE_BYTES: Final = 1024 * 1024
"""As much as a pipe may hold: who goes on writing while it is emptied is not read for ever."""


@dataclass(frozen=True, slots=True)
class GuestEnds:
    """Descriptors for the guest; the session keeps the other ends."""

    wire: int
    stdout: int
    stderr: int

    def close(self) -> None:
        for descriptor in (self.wire, self.stdout, self.stderr):
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class HostEnds:
    """The other ends of :class:`GuestEnds`."""

    wire: socket.socket
    stdout: int
    stderr: int

    def close(self) -> None:
        self.wire.close()
        os.close(self.stdout)
        os.close(self.stderr)


def open_ends() -> tuple[HostEnds, GuestEnds]:
    """A socket pair and two pipes."""
    host, guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    refuse_descriptors(host)
    (stdout, stdout_writer), (stderr, stderr_writer) = (os.pipe2(os.O_CLOEXEC) for _ in range(2))
    os.set_blocking(stdout, False)
    os.set_blocking(stderr, False)
    return HostEnds(host, stdout, stderr), GuestEnds(guest.detach(), stdout_writer, stderr_writer)


def refuse_descriptors(host: socket.socket) -> None:
    """Have the kernel refuse descriptors that a guest sends, where it can (Linux 6.16).

    The host would not take them, so it would close them, and what that takes is the guest's choice.
    """
    try:
        host.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise


class GuestSession:
    """The host's side of one guest. Use: ``open`` or ``attach``, ``call``, ``drain``, ``close``."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.budget = LogBudget(limits.log_bytes)
        self._wire: HostWire | None = None
        self._services: GuestServices | None = None
        self._pipes: dict[int, LineCutter] = {}

    async def open(self) -> GuestEnds:
        """Make the socket pair and the pipes."""
        host, guest = open_ends()
        await self.attach(host)
        return guest

    async def attach(self, ends: HostEnds) -> None:
        """Use these; the session closes them."""
        _, self._wire = await asyncio.get_running_loop().create_unix_connection(
            lambda: HostWire(self.limits, self.budget), sock=ends.wire
        )
        for stream, level, reader in (
            ("stdout", "info", ends.stdout),
            ("stderr", "warning", ends.stderr),
        ):
            emit = self._emitter(stream, level)
            self._pipes[reader] = LineCutter(self.limits.log_line_bytes, self.budget, emit)

    async def call(
        self,
        entry: tuple[str, ...],
        inputs: JsonObject,
        context: JsonObject,
        services: GuestServices,
    ) -> Answer:
        """Send the call and wait for its answer, passing on what the guest says meanwhile."""
        assert self._wire is not None
        self._services = services
        loop = asyncio.get_running_loop()
        for descriptor in self._pipes:
            loop.add_reader(descriptor, self._read, descriptor)
        self._wire.call(entry, inputs, context, services)
        return await asyncio.shield(self._wire.answer)

    @property
    def wire_descriptor(self) -> int:
        """The host's end of the wire; -1 when it is closed."""
        return -1 if self._wire is None else self._wire.descriptor

    def drain(self) -> None:
        """Read what the pipes hold, say what was dropped, and hear nothing after that."""
        for descriptor in self._pipes:
            left = _PIPE_BYTES
            while left > 0 and (size := self._read(descriptor)):
                left -= size
            asyncio.get_running_loop().remove_reader(descriptor)
        for cutter in self._pipes.values():
            cutter.close()
        if self.budget.dropped and self._services is not None:
            text = (
                f"{self.budget.dropped} bytes of log were dropped: "
                f"the limit is {self.limits.log_bytes} bytes"
            )
            self._services.log("log", "warning", text)
        self._services = None

    def close(self) -> None:
        """Give up every descriptor; safe to call twice."""
        loop = asyncio.get_running_loop()
        for descriptor in self._pipes:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._pipes.clear()
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _emitter(self, stream: str, level: str) -> Callable[[str], None]:
        def emit(line: str) -> None:
            if self._services is not None:
                self._services.log(stream, level, line)

        return emit

    def _read(self, descriptor: int) -> int:
        """Read one chunk. Returns its size, 0 when there is none (now, or ever again)."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return 0
        if data:
            self._pipes[descriptor].feed(data)
        else:
            asyncio.get_running_loop().remove_reader(descriptor)
        return len(data)
