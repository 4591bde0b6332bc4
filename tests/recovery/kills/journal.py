"""Reads the records that are judged, past the engine and its store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row

Journal: TypeAlias = Path | str
"""A home that holds its own database, or the address of a PostgreSQL one."""
Row: TypeAlias = dict[str, Any]


def query(journal: Journal, sql: str, *values: object) -> list[Row]:
    """Rows of the database, as any program would read them; values stand as ``?``."""
    if isinstance(journal, str):
        text = sql.replace("%", "%%").replace("?", "%s").encode()
        with psycopg.connect(journal, row_factory=dict_row) as connection:
            return connection.execute(text, values).fetchall()
    with closing(sqlite3.connect(journal / "registry" / "registry.db", timeout=30)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(sql, values)]
