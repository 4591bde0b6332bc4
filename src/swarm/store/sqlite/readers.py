"""Reading connections. They see all that is committed.

Queries of any length run off the event loop. One that reads a few rows by their key takes tens of
microseconds, a tenth of what it costs to have a thread do it and tell: it runs where it is asked
for, on a connection that waits for nobody.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from swarm.kernel.settings import Settings
from swarm.store.sqlite.connection import connect
from swarm.store.sqlite.failures import Failures

T = TypeVar("T")

READER_THREADS = 2
"""Queries that run at once; further ones wait in turn."""
_FAILURES = (sqlite3.Error, OverflowError, UnicodeError)
"""What a query raises: the last two for values that SQLite cannot hold."""


class Readers:
    """A few threads, each with a connection of its own, opened when first needed."""

    def __init__(self, path: Path, settings: Settings, failures: Failures) -> None:
        self._path = path
        self._settings = settings
        self._failures = failures
        self._threads = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="swarm-store-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._own: sqlite3.Connection | None = None
        self._open = True

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``query`` on a reading connection.

        Raises:
            DatabaseError: the database cannot be read.
        """
        if not self._open:
            raise self._failures.closed()
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._query, query)

    async def look_up(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``query``, which reads a few rows by their key, at once.

        Raises:
            DatabaseError: the database cannot be read.
        """
        if not self._open:
            raise self._failures.closed()
        try:
            if self._own is None:
                self._own = self._connect()
                self._own.execute("PRAGMA busy_timeout = 0")
            return query(self._own)
        except _FAILURES as error:
            if not _is_busy(error):
                raise self._failures.explain(error) from None
        # Somebody has the whole database, to recover it: the event loop must not wait for that.
        return await self.run(query)

    async def close(self) -> None:
        """Wait for running queries and close the connections."""
        self._open = False
        await asyncio.to_thread(self._threads.shutdown)
        while self._connections:
            self._connections.pop().close()

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return query(self._connection())
        except _FAILURES as error:
            raise self._failures.explain(error) from None

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            self._local.connection = connection
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self._path, self._settings, query_only=True)
        self._connections.append(connection)
        return connection


def _is_busy(error: Exception) -> bool:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF == sqlite3.SQLITE_BUSY
