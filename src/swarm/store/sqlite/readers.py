"""Reading connections, used off the event loop. They see all that is committed."""

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


class Readers:
    """A few threads, each with a connection of its own, opened when first needed."""

    def __init__(self, path: Path, settings: Settings, failures: Failures) -> None:
        self._path = path
        self._settings = settings
        self._failures = failures
        self._threads = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="swarm-store-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._open = True

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``query`` on a reading connection.

        Raises:
            DatabaseError: the database cannot be read.
        """
        if not self._open:
            raise self._failures.closed()
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._query, query)

    async def close(self) -> None:
        """Wait for running queries and close the connections."""
        self._open = False
        await asyncio.to_thread(self._threads.shutdown)
        while self._connections:
            self._connections.pop().close()

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return query(self._connection())
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise self._failures.explain(error) from None

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect(self._path, self._settings, query_only=True)
            self._local.connection = connection
            self._connections.append(connection)
        return connection
