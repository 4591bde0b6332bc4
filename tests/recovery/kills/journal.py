"""Reads the records that are judged, past the engine and its store."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row

Journal: TypeAlias = Path | str
"""A home that holds its own database, or the address of a PostgreSQL one."""
Row: TypeAlias = dict[str, Any]

PATIENCE_SECONDS = 10.0
_connections: dict[str, psycopg.Connection[Row]] = {}
"""One for each database: to connect takes longer than to ask."""


def query(journal: Journal, sql: str, *values: object) -> list[Row]:
    """Rows of the database, as any program would read them; values stand as ``?``."""
    if isinstance(journal, str):
        return _ask(journal, sql.replace("%", "%%").replace("?", "%s").encode(), values)
    with closing(sqlite3.connect(journal / "registry" / "registry.db", timeout=30)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(sql, values)]


def _ask(url: str, sql: bytes, values: tuple[object, ...]) -> list[Row]:
    """Ask on the connection that is there, or on a new one should it be lost."""
    if url in _connections:
        with suppress(psycopg.OperationalError):
            return _rows(_connections[url], sql, values)
        _connections.pop(url).close()
    _connections[url] = _connect(url)
    return _rows(_connections[url], sql, values)


def _connect(url: str) -> psycopg.Connection[Row]:
    """Connect, as soon as those whom this asks about leave it a connection."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return psycopg.connect(url, autocommit=True, row_factory=dict_row)
        except psycopg.OperationalError:
            if time.monotonic() >= ends:
                raise
        time.sleep(0.05)


def _rows(connection: psycopg.Connection[Row], sql: bytes, values: tuple[object, ...]) -> list[Row]:
    cursor = connection.execute(sql, values)
    return cursor.fetchall() if cursor.description else []
