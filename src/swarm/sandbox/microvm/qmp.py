"""QEMU's control connection: JSON lines, one command at a time.

Source: QEMU's ``docs/interop/qmp-spec.rst`` and ``qemu-qmp-ref``.
"""

from __future__ import annotations

import array
import asyncio
import socket
from typing import Final

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.json import JsonObject, JsonValue, dump_bytes, loads

_LINE_LIMIT: Final = 1024 * 1024


class Qmp:
    """One connection. Make one with :meth:`open`."""

    def __init__(self, host: socket.socket) -> None:
        self._host = host
        self._buffer = bytearray()

    @classmethod
    async def open(cls, host: socket.socket) -> Qmp:
        """Greet the other end of ``host``, which becomes this object's."""
        host.setblocking(False)
        qmp = cls(host)
        await qmp._receive()  # The greeting.
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
            SandboxUnavailable: QEMU refused, or is gone.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        await self._send(dump_bytes({"execute": command, "arguments": named}), descriptor)
        while True:
            message = await self._receive()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise _failed(f"{command}: {message['error']['desc']}")

    async def wait_migrated(self) -> None:
        """Wait until the migration under way is complete.

        Raises:
            SandboxUnavailable: it failed.
        """
        while True:
            status = await self.execute("query-migrate")
            state = status.get("status") if isinstance(status, dict) else None
            if state == "completed":
                return
            if state in ("failed", "cancelled"):
                raise _failed(f"the machine's state could not be carried over: {status}")
            await self._receive_event("MIGRATION")

    def close(self) -> None:
        self._host.close()

    async def _receive_event(self, name: str) -> None:
        while (await self._receive()).get("event") != name:
            pass

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
        return message


def _failed(what: str) -> SandboxUnavailable:
    return SandboxUnavailable(f"QEMU failed: {what}", where="qemu", remedy="run `swarm doctor`")
