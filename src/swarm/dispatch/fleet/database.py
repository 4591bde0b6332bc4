"""The fleet's two connections: one asks, one listens. Both come back by themselves.

They are not the store's: a heartbeat must not wait behind a thousand commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, sql

from swarm.dispatch.fleet.schema import prepare
from swarm.kernel.errors import DatabaseError

CONNECT_SECONDS = 5
CUT_SECONDS = 0.5
"""What ends with a connection that was cut has ended by then; else it only waits for its turn."""
LONGEST_PAUSE_SECONDS = 2.0
"""Between attempts to connect again; the first follows at once."""
KEEPALIVE: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""So that a connection that was cut off without a word is noticed within some ten seconds."""


async def connect(url: str) -> AsyncConnection[Any]:
    """A connection in which each statement is a transaction.

    Raises:
        DatabaseError: there is no way to the server, or it refuses.
    """
    try:
        return await AsyncConnection.connect(
            url, autocommit=True, prepare_threshold=None, application_name="swarm", **KEEPALIVE
        )
    except psycopg.Error as error:
        raise unreachable(error) from None


def unreachable(error: Exception) -> DatabaseError:
    reason = str(error).strip().partition("\n")[0] or "the connection was lost"
    return DatabaseError(
        f"the database cannot be used: {reason}",
        remedy="check SWARM_DATABASE_URL, that the server runs, and that it takes connections",
    )


def cut(connection: AsyncConnection[Any]) -> None:
    """End a connection whose server may not answer: whoever waits for it gets an error at once.

    Cancelling a query instead would wait for the server.
    """
    with contextlib.suppress(OSError, psycopg.Error):
        descriptor = os.dup(connection.fileno())
        with socket.socket(fileno=descriptor) as own:
            own.shutdown(socket.SHUT_RDWR)


class Asking:
    """Statements, one after the other, on one connection; the fleet's tables are made at first."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._works: set[asyncio.Future[list[tuple[Any, ...]]]] = set()
        """Statements under way, also those that nobody waits for any more."""

    async def rows(
        self, query: LiteralString, values: Sequence[object] = (), *, seconds: float = 30.0
    ) -> list[tuple[Any, ...]]:
        """Run a statement within ``seconds``, and return its rows.

        Raises:
            DatabaseError: it could not be run, or it is not known whether it was.
        """
        work = asyncio.ensure_future(self._rows(query, values))
        self._works.add(work)
        work.add_done_callback(self._ended)
        done, _ = await asyncio.wait({work}, timeout=seconds)
        if not done:
            # Not cancelled while it talks with the server: that would wait for the server's answer.
            self._cut()
            asyncio.get_running_loop().call_later(CUT_SECONDS, work.cancel)
            raise unreachable(TimeoutError(f"no answer within {seconds:g} s"))
        return work.result()

    async def _rows(self, query: LiteralString, values: Sequence[object]) -> list[tuple[Any, ...]]:
        async with self._turn:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = await self._connected()
                cursor = await self._connection.execute(query, values)
                return await cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                if self._connection is not None and self._connection.closed:
                    self._connection = None
                raise unreachable(error) from error

    async def _connected(self) -> AsyncConnection[Any]:
        connection = await connect(self._url)
        try:
            await prepare(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    def _cut(self) -> None:
        if self._connection is not None:
            cut(self._connection)
            self._connection = None

    def _ended(self, work: asyncio.Future[list[tuple[Any, ...]]]) -> None:
        self._works.discard(work)
        if not work.cancelled():
            work.exception()  # whoever waited for it was told

    async def close(self) -> None:
        """Let what is under way end, and close the connection."""
        if self._works:
            await asyncio.wait(self._works, timeout=CONNECT_SECONDS)
        if self._works:
            self._cut()
            await asyncio.wait(self._works, timeout=CONNECT_SECONDS)
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


class Listening:
    """Hears what is notified on some channels, for as long as it runs."""

    def __init__(
        self,
        url: str,
        channels: Sequence[str],
        heard: Callable[[str, str], None],
        gap: Callable[[], None],
    ) -> None:
        """
        Args:
            url: the database, not by way of a pooler that gives connections away in between.
            channels: what to listen to.
            heard: called with the channel and the payload.
            gap: called whenever it listens anew, as what was told meanwhile is lost.
        """
        self._url = url
        self._channels = tuple(channels)
        self._heard = heard
        self._gap = gap
        self._connection: AsyncConnection[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when it listens.

        Raises:
            DatabaseError: there is no way to the server.
        """
        await self._connect()
        self._task = asyncio.create_task(self._run(), name="fleet listener")

    @property
    def task(self) -> asyncio.Task[None]:
        """What listens, once it was started."""
        assert self._task is not None, "it was not started"
        return self._task

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            if self._connection is not None:
                cut(self._connection)
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()

    async def _connect(self) -> None:
        connection = await connect(self._url)
        listen = sql.SQL("; ").join(
            sql.SQL("LISTEN {}").format(sql.Identifier(name)) for name in self._channels
        )
        try:
            await connection.execute(listen)
        except psycopg.Error as error:
            await connection.close()
            raise unreachable(error) from None
        self._connection = connection

    async def _run(self) -> None:
        pause = 0.0
        while True:
            if self._connection is not None:
                try:
                    async for notice in self._connection.notifies():
                        self._heard(notice.channel, notice.payload)
                except psycopg.Error:
                    await self._connection.close()
                self._connection = None
            await asyncio.sleep(pause)
            pause = min(max(pause * 2, 0.05), LONGEST_PAUSE_SECONDS)
            with contextlib.suppress(DatabaseError):
                await self._connect()
                pause = 0.0
                self._gap()
