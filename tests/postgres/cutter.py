"""A proxy before PostgreSQL that cuts the connection around a COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum

CHUNK_BYTES = 65_536


class Cut(Enum):
    """Where a connection is cut."""

    NOWHERE = "nowhere"
    BEFORE = "before"
    """The server never sees the COMMIT; it still believes in the connection for a while."""
    AFTER = "after"
    """The server commits; its answer is lost."""


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
                    if cut is Cut.AFTER:
                        to_server.write(data)
                        await to_server.drain()
                        # Its answer shows that it has committed; nobody is told.
                        await from_server.read(CHUNK_BYTES)
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
