"""The two databases have the same tables, columns, defaults and indexes."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import psycopg
import pytest

from swarm.store.sql.copying import TABLES
from swarm.store.sqlite import SqliteStore

TYPES = {
    "TEXT": "text",
    "JSON": "text",
    "TIMESTAMP": "text",
    "INTEGER": "bigint",
    "BOOLEAN": "bigint",
    "BLOB": "bytea",
}
FRACTIONS = {("agents", "timeout_seconds")}
"""Whole numbers by name, in SQLite also others by value."""
EXTRA_INDEXES = {"idx_events_rowid", "idx_step_cache_rowid"}
"""SQLite finds a row by its number without one."""
Column = tuple[str, str, bool, str | None]


@pytest.fixture
def tables(migrated_url: str) -> psycopg.Connection:
    return psycopg.connect(migrated_url, autocommit=True)


ONLY_SHARED = ("blob", "fleet_", "procrastinate_", "writer_marks")
"""Tables of what machines share: files, and who drives which run; and of commits in doubt."""


def test_the_tables_are_the_same(
    store: SqliteStore, plain: sqlite3.Connection, tables: psycopg.Connection
) -> None:
    with closing(tables):
        rows = tables.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        names = plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        there = {name for (name,) in rows if not name.startswith(ONLY_SHARED)}
        assert there == {name for (name,) in names}
        assert {*TABLES, "schema_migrations"} == {
            name for (name,) in plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }, "every table is copied"


@pytest.mark.parametrize("table", TABLES)
def test_columns_are_the_same(
    store: SqliteStore, plain: sqlite3.Connection, tables: psycopg.Connection, table: str
) -> None:
    with closing(tables):
        theirs = {
            (name, kind, required == "NO", default(text))
            for name, kind, required, text in tables.execute(
                "SELECT column_name, data_type, is_nullable, column_default "
                "FROM information_schema.columns WHERE table_name = %s "
                "AND table_schema = 'public' AND column_name <> 'rowid'",
                [table],
            )
        }
        collations = {
            name
            for (name,) in tables.execute(
                "SELECT DISTINCT collation_name FROM information_schema.columns "
                "WHERE table_name = %s AND data_type = 'text' AND table_schema = 'public'",
                [table],
            )
        }
    ours = {
        (
            name,
            "double precision" if (table, name) in FRACTIONS else TYPES[kind],
            bool(required or key),
            default(text),
        )
        for _, name, kind, required, text, key in plain.execute(f"PRAGMA table_info({table})")
    }
    assert theirs == ours
    assert collations == {"C"}, "text sorts by its bytes"


def default(text: str | None) -> str | None:
    """A default in one form for both databases."""
    if text is None:
        return None
    text = re.sub(r"::\w+( \w+)*", "", text).replace("swarm_stamp()", "CURRENT_TIMESTAMP")
    text = text.replace("'\\x'", "''").replace("x''", "''").strip("()")
    return re.sub(r"^'(-?\d+)'$", r"\1", text)


@pytest.mark.parametrize("table", TABLES)
def test_indexes_are_the_same(
    store: SqliteStore, plain: sqlite3.Connection, tables: psycopg.Connection, table: str
) -> None:
    with closing(tables):
        theirs = {
            (name if name.startswith("idx_") else "", unique, columns(definition))
            for name, unique, definition in tables.execute(
                "SELECT relname, indisunique, pg_get_indexdef(indexrelid) FROM pg_index "
                "JOIN pg_class ON pg_class.oid = indexrelid "
                "WHERE indrelid = %s::regclass ORDER BY relname",
                [table],
            )
            if name not in EXTRA_INDEXES
        }
    ours = set()
    for _, name, unique, origin, _ in plain.execute(f"PRAGMA index_list({table})").fetchall():
        if origin == "c":
            (script,) = plain.execute(
                "SELECT sql FROM sqlite_master WHERE name = ?", (name,)
            ).fetchone()
            ours.add((name, bool(unique), columns(script)))
        else:
            names = [row[2] for row in plain.execute(f"PRAGMA index_info({name})")]
            ours.add(("", True, columns(f"ON t({', '.join(names)})")))
    assert theirs == ours


def columns(definition: str) -> str:
    """What an index is over, and which rows it holds, in one form for both databases."""
    text = definition[definition.index("ON ") :].lower()
    text = re.sub(r"::\w+(\[\])?", "", text)
    text = re.sub(r'collate "c"|using btree|public\.|"|array', "", text)
    text = text.replace("= any", "in").replace("<>", "!=")
    text = re.sub(r"[\s()\[\]]+", " ", text).replace(" ,", ",")
    text = re.sub(r"^on \w+ ", "", text).strip()
    text = re.sub(r"left capabilities, 256", "capabilities", text)
    # Behind the run, PostgreSQL's index holds the number of the row, as SQLite's does by itself.
    return text.replace("run_id, rowid", "run_id")
