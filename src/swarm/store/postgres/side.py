"""A PostgreSQL database as a side of a copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import cast

import psycopg
from psycopg import sql

from swarm.kernel.settings import Settings
from swarm.store.postgres.connection import Raw, connect, place
from swarm.store.postgres.failures import FAILURES, Failures
from swarm.store.postgres.migration import migrate
from swarm.store.sql.connection import Row
from swarm.store.sql.copying import TABLES

ROWS_AT_ONCE = 100
ROW_NUMBER = "rowid"


class PostgresSide:
    """See :class:`swarm.store.sql.copying.Side`."""

    def __init__(self, raw: Raw, where: str) -> None:
        self._raw = raw
        self.place = where

    def columns(self, table: str) -> frozenset[str]:
        return self._all_columns(table) - {ROW_NUMBER}

    def count(self, table: str) -> int:
        text = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
        (count,) = self._raw.execute(text).fetchone() or (0,)
        return int(count)

    def rows(self, table: str, columns: tuple[str, ...]) -> Iterator[Row]:
        order = ROW_NUMBER if ROW_NUMBER in self._all_columns(table) else None
        text = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
            _names(columns), sql.Identifier(table), sql.Identifier(order) if order else sql.SQL("1")
        )
        # A cursor of the server's: it hands rows out as they are asked for.
        with psycopg.ServerCursor(self._raw, "swarm_copy") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            cursor.execute(text)
            yield from cast(Iterator[Row], cursor)

    def insert(self, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
        text = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), _names(columns))
        with self._raw.cursor() as cursor, cursor.copy(text) as copy:
            for row in rows:
                copy.write_row(row)

    def _all_columns(self, table: str) -> frozenset[str]:
        rows = self._raw.execute(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = current_schema() AND table_name = $1",
            [table],
        )
        return frozenset(str(name) for (name,) in rows)


@contextmanager
def postgres_side(url: str, settings: Settings) -> Iterator[PostgresSide]:
    """The database at ``url``, its tables made where there are none, while nobody else writes it.

    What was inserted is committed at the end; an error undoes it.

    Raises:
        DatabaseError: it cannot be used, or somebody writes it all the time.
    """
    migrate(url, settings, upgrade=False)
    failures = Failures(place(url))
    tables = sql.SQL(", ").join(map(sql.Identifier, TABLES))
    milliseconds = round(settings.database_timeout_seconds * 1000)
    try:
        with closing(connect(url, settings, writes=True)) as raw:
            raw.execute("SELECT set_config('lock_timeout', $1, true)", [f"{milliseconds}ms"])
            # Others may read meanwhile.
            raw.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(tables))
            yield PostgresSide(raw, failures.place)
            raw.execute(sql.SQL("ANALYZE {}").format(tables))
            raw.commit()
    except FAILURES as error:
        raise failures.explain(error) from None


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
