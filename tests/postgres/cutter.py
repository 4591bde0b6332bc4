"""A proxy before PostgreSQL that cuts the connection around a COMMIT."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum

CHUNK_BYTES = 65_536
_FIELDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
ENDING = b"E" + struct.pack("!I", 4 + len(_FIELDS)) + _FIELDS
"""An ErrorResponse: https://www.postgresql.org/docs/current/protocol-message-formats.html"""


class Cut(Enum):
    """Where a connection is cut."""

    NOWHERE = "nowhere"
    BEFORE = "before"
    """The server never sees the COMMIT; it still believes in the connection for a while."""
    AFTER = "after"
    """The server commits; its answer is lost."""
    ENDED = "ended"
    """The server commits and ends the connection in the same breath, as when it is stopped."""


class Cutter:
    """Passes on what both sides say, but for the next COMMIT of a transaction that wrote."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self.cut = Cut.NOWHERE
        """Applied to the next COMMIT, once."""
        self.cuts = 0
        self._left: list[asyncio.StreamWriter] = []

    async def serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*self._server)
        back = asyncio.create_task(self._pass_on(from_server, answer))
        with suppress(ConnectionError):
            while data := await client.read(CHUNK_BYTES):
                if b"COMMIT" in data and self.cut is not Cut.NOWHERE:
                    cut, self.cut = self.cut, Cut.NOWHERE
                    self.cuts += 1
                    back.cancel()
                    if cut is not Cut.BEFORE:
                        to_server.write(data)
                        await to_server.drain()
                        told = await from_server.read(CHUNK_BYTES)  # it has committed
                    if cut is Cut.ENDED:
                        answer.write(told + ENDING)
                        await answer.drain()
                        answer.close()
                    else:
                        answer.transport.abort()
                    self._left.append(to_server)  # stays open: the server does not know
                    return
                to_server.write(data)
                await to_server.drain()
        back.cancel()
        to_server.close()
        answer.close()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(CHUNK_BYTES):
                target.write(data)
                await target.drain()
        target.close()

    def close(self) -> None:
        for writer in self._left:
            writer.transport.abort()


@asynccontextmanager
async def cutting(host: str, port: int) -> AsyncIterator[tuple[Cutter, int]]:
    """A proxy to this server, and the port that it listens on."""
    cutter = Cutter(host, port)
    listening = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    try:
        yield cutter, listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        cutter.close()
