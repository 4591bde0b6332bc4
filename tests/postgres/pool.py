"""Databases with Swarm's tables and no rows, used by one test after the other.

To empty one takes milliseconds; to make one takes a hundred times as long.
"""

from __future__ import annotations

from contextlib import closing, suppress

import psycopg
from psycopg import sql

from swarm.kernel.settings import Settings
from swarm.store.postgres.migration import migrate
from tests.postgres.server import PostgresServer


class EmptyDatabases:
    """Databases of one server."""

    def __init__(self, server: PostgresServer, settings: Settings) -> None:
        self._server = server
        self._settings = settings
        self._free: list[str] = []

    def take(self) -> str:
        """The address of one that nobody uses."""
        if self._free:
            return self._free.pop()
        url = self._server.url(self._server.create_database())
        migrate(url, self._settings)
        return url

    def give_back(self, url: str) -> None:
        """Empty it, and end whoever is still connected (a process that a test has killed)."""
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            tables = [
                name
                for (name,) in connection.execute(
                    "SELECT table_name FROM information_schema.tables "
                    "WHERE table_schema = 'public' "
                    "AND table_name NOT IN ('schema_migrations', 'fleet_schema')"
                )
            ]
            with suppress(psycopg.errors.LockNotAvailable):
                connection.execute("SET lock_timeout = '10s'")
                connection.execute(
                    sql.SQL("TRUNCATE {} RESTART IDENTITY").format(
                        sql.SQL(", ").join(map(sql.Identifier, tables))
                    )
                )
                self._free.append(url)
