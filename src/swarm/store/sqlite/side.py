"""An SQLite file as a side of a copy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.kernel.settings import Settings
from swarm.store.sql.connection import Row
from swarm.store.sql.schema import refuse_nothing
from swarm.store.sqlite.failures import Failures
from swarm.store.sqlite.migration import MIGRATIONS, open_migrated

ROWS_AT_ONCE = 100


class SqliteSide:
    """See :class:`swarm.store.sql.copying.Side`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.place = str(path)

    def columns(self, table: str) -> frozenset[str]:
        rows = self._connection.execute(f"PRAGMA table_info({table})")
        return frozenset(str(row[1]) for row in rows)

    def count(self, table: str) -> int:
        (count,) = self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)

    def rows(self, table: str, columns: tuple[str, ...]) -> Iterator[Row]:
        (script,) = self._connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
        ).fetchone()
        # Without a rowid, a table is in the order of its key.
        order = "" if "WITHOUT ROWID" in script else " ORDER BY rowid"
        cursor = self._connection.execute(f"SELECT {', '.join(columns)} FROM {table}{order}")
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            yield from rows

    def insert(self, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
        marks = ", ".join("?" * len(columns))
        self._connection.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows
        )


@contextmanager
def sqlite_side(path: Path, settings: Settings) -> Iterator[SqliteSide]:
    """The database at ``path``, made or upgraded where needed, while nobody else can write it.

    What was inserted is committed at the end; an error undoes it.

    Raises:
        DatabaseError: it cannot be used, or another process is writing.
    """
    failures = Failures(path, settings.database_timeout_seconds)
    try:
        connection = open_migrated(path, settings, failures, MIGRATIONS, refuse_nothing)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield SqliteSide(connection, path)
            connection.execute("COMMIT")
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise failures.explain(error) from None
