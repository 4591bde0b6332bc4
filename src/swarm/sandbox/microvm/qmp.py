"""QEMU's control connection: JSON lines, one command at a time.

Source: QEMU's ``docs/interop/qmp-spec.rst`` and ``qemu-qmp-ref``.
"""

from __future__ import annotations

import array
import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.json import JsonObject, JsonValue, dump_bytes, loads

ANSWER_SECONDS: Final = 60.0
_LINE_LIMIT: Final = 1024 * 1024


class Qmp:
    """One connection. Make one with :meth:`open`.

    Every wait has a limit: a QEMU that says nothing any more is as good as gone.
    """

    def __init__(self, host: socket.socket, seconds: float) -> None:
        self._host = host
        self._seconds = seconds
        self._buffer = bytearray()
        self._migration = "none"
        """How far the migration is, by QEMU's latest event."""

    @classmethod
    async def open(cls, host: socket.socket, seconds: float = ANSWER_SECONDS) -> Qmp:
        """Greet the other end of ``host``, which becomes this object's.

        Args:
            host: a stream socket.
            seconds: how long QEMU may take for anything that it is asked.
        """
        host.setblocking(False)
        qmp = cls(host, seconds)
        async with qmp._limit("its greeting"):
            await qmp._receive()
        await qmp.execute("qmp_capabilities")
        return qmp

    async def execute(
        self, command: str, descriptor: int | None = None, **arguments: JsonValue
    ) -> JsonValue:
        """Run a command and return what it returns.

        Args:
            command: its name.
            descriptor: an open file that goes with it (``getfd``).
            arguments: of the command; ``_`` in a name stands for ``-``.

        Raises:
            SandboxUnavailable: QEMU refused, is gone, or does not answer in time.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        async with self._limit(command):
            await self._send(dump_bytes({"execute": command, "arguments": named}), descriptor)
            while True:
                message = await self._receive()
                if "return" in message:
                    return message["return"]
                if "error" in message:
                    raise _failed(f"{command}: {message['error']['desc']}")

    async def wait_migrated(self) -> None:
        """Wait until the migration is complete that was begun on this connection.

        Its events are counted on, wherever they arrive: the answer to a question about its state
        may be older than the events that came before it.

        Raises:
            SandboxUnavailable: it failed, or is not complete in time.
        """
        async with self._limit("the migration"):
            while self._migration != "completed":
                if self._migration in ("failed", "cancelled"):
                    raise _failed("the machine's state could not be carried over")
                await self._receive()

    def close(self) -> None:
        self._host.close()

    @asynccontextmanager
    async def _limit(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError:
            raise _failed(f"{what} took longer than {self._seconds:g} seconds") from None

    async def _send(self, data: bytes, descriptor: int | None) -> None:
        loop = asyncio.get_running_loop()
        try:
            if descriptor is None:
                await loop.sock_sendall(self._host, data + b"\n")
            else:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
                self._host.sendmsg([data + b"\n"], [rights])
        except OSError:
            raise _failed("it is gone") from None

    async def _receive(self) -> JsonObject:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._buffer:
            try:
                data = await loop.sock_recv(self._host, 65536)
            except OSError:
                data = b""
            if not data or len(self._buffer) > _LINE_LIMIT:
                raise _failed("it is gone")
            self._buffer += data
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        message = loads(line)
        assert isinstance(message, dict)
        if message.get("event") == "MIGRATION":
            self._migration = str(message["data"]["status"])
        return message


def _failed(what: str) -> SandboxUnavailable:
    return SandboxUnavailable(f"QEMU failed: {what}", where="qemu", remedy="run `swarm doctor`")
