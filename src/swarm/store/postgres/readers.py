"""Reading connections: a bounded pool. They see all that is committed.

Each query waits for the server, so each runs on a thread; an idle connection is used again, the
latest first, and one that was lost is opened anew.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg

from swarm.kernel.settings import Settings
from swarm.store.postgres.connection import (
    NO_COMPILING,
    PostgresConnection,
    Raw,
    connect,
    connect_patiently,
    is_pooled,
)
from swarm.store.postgres.failures import FAILURES, Failures, is_loss
from swarm.store.postgres.migration import MIGRATIONS, check_version
from swarm.store.sql.connection import Connection

T = TypeVar("T")


class Readers:
    """A few threads, each with a connection of its own, opened when first needed."""

    def __init__(
        self, url: str, settings: Settings, failures: Failures, known: int = len(MIGRATIONS)
    ) -> None:
        self._url = url
        self._settings = settings
        self._failures = failures
        self._known = known
        self._threads = ThreadPoolExecutor(
            settings.database_readers, thread_name_prefix="swarm-store-reader"
        )
        self._local = threading.local()
        self._connections: list[Raw] = []
        self._is_open = True

    async def run(self, query: Callable[[Connection], T]) -> T:
        """Run ``query`` on a reading connection.

        Raises:
            DatabaseError: the database cannot be read.
        """
        if not self._is_open:
            raise self._failures.closed()
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._query, query)

    async def look_up(self, query: Callable[[Connection], T]) -> T:
        """As :meth:`run`: the server is elsewhere, and the event loop does not wait for it."""
        return await self.run(query)

    async def close(self) -> None:
        """Wait for running queries and close the connections."""
        self._is_open = False
        await asyncio.to_thread(self._threads.shutdown)
        while self._connections:
            self._connections.pop().close()

    def _query(self, query: Callable[[Connection], T]) -> T:
        deadline = time.monotonic() + self._settings.database_reconnect_seconds
        try:
            while True:
                raw: Raw | None = getattr(self._local, "connection", None)
                if raw is None or raw.closed:
                    raw = self._open()
                try:
                    return query(PostgresConnection(raw))
                except psycopg.OperationalError as error:
                    # A lost connection, which the driver itself may have noticed (then there is
                    # no SQLSTATE): the query can be asked again on another.
                    is_lost = raw.closed or error.sqlstate is None or is_loss(error)
                    if not is_lost or time.monotonic() > deadline:
                        raise
                    raw.close()
        except FAILURES as error:
            raise self._failures.explain(error) from None

    def _open(self) -> Raw:
        raw = connect_patiently(self._connect, self._settings.database_reconnect_seconds)
        self._connections = [one for one in self._connections if not one.closed]
        self._connections.append(raw)
        self._local.connection = raw
        return raw

    def _connect(self) -> Raw:
        raw = connect(self._url, self._settings, writes=False)
        try:
            if is_pooled(raw):
                raw.prepare_threshold = None
            else:
                raw.execute(NO_COMPILING)
            check_version(raw, self._failures, self._known)
        except BaseException:
            raw.close()
            raise
        return raw
