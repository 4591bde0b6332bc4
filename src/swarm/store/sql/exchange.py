"""Reading and writing whole runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from msgspec.structs import replace

from swarm.kernel.errors import InvalidError
from swarm.store.records import (
    AnswerRecord,
    ArchiveEntry,
    InvocationRecord,
    NewRun,
    RunAttribute,
    RunRecord,
    StepRecord,
)
from swarm.store.sql import creation
from swarm.store.sql.connection import Connection
from swarm.store.sql.rows import INVOCATIONS, RUNS, STEPS, Rows
from swarm.store.sql.waits import ANSWERS

ATTRIBUTES = "SELECT kind, name, value FROM run_attributes WHERE run_id = ? ORDER BY kind, name"
_ROWS: dict[str, Rows[Any]] = {rows.table: rows for rows in (STEPS, INVOCATIONS, ANSWERS)}
PAGES = {
    table: f"SELECT rowid, {rows.column_list} FROM {table} WHERE run_id = ? AND rowid > ? "
    "ORDER BY rowid LIMIT ?"
    for table, rows in _ROWS.items()
}
_INSERTS: dict[type, tuple[Rows[Any], str]] = {
    record: (rows, rows.insert())
    for record, rows in (
        (StepRecord, STEPS),
        (InvocationRecord, INVOCATIONS),
        (AnswerRecord, ANSWERS),
    )
}
_INSERT_RUN = f"{RUNS.insert()} ON CONFLICT (id) DO NOTHING"
_ENTRIES_AT_ONCE = 100


def page(
    connection: Connection, run_id: str, after: str, limit: int
) -> tuple[list[ArchiveEntry], str]:
    """A page of what belongs to the run, and the place of the next: a table and a row in it."""
    tables = list(PAGES)
    table, _, row = after.partition(" ")
    found: list[ArchiveEntry] = []
    start = int(row or 0)
    for name in tables[tables.index(table) if table else 0 :]:
        rows = connection.execute(PAGES[name], (run_id, start, limit - len(found))).fetchall()
        found += [_ROWS[name].decode(values) for _, *values in rows]
        if len(found) == limit:
            return found, f"{name} {rows[-1][0]}"
        start = 0
    found += [RunAttribute(*values) for values in connection.execute(ATTRIBUTES, (run_id,))]
    return found, ""


def restore(connection: Connection, entries: Iterable[ArchiveEntry]) -> bool:
    """Insert the run and all that belongs to it, unless it is there."""
    remaining = iter(entries)
    run = next(remaining)
    if not isinstance(run, RunRecord) or not run.status.is_final:
        raise InvalidError("only a run that has ended can be restored, and it comes first")
    standing = creation.same_key(connection, run)
    if standing is not None and standing.id != run.id:
        run = replace(run, idempotency_key=None)
    if not connection.execute(_INSERT_RUN, RUNS.encode(run)).rowcount:
        return False
    attributes: list[RunAttribute] = []
    while chunk := list(islice(remaining, _ENTRIES_AT_ONCE)):
        for record, (rows, insert) in _INSERTS.items():
            of_kind = (rows.encode(entry) for entry in chunk if isinstance(entry, record))
            connection.executemany(insert, of_kind)
        attributes += _attributes(chunk)
    creation.add_attributes(connection, creation.encode(NewRun(run, (), tuple(attributes))))
    return True


def _attributes(entries: Iterable[ArchiveEntry]) -> Iterator[RunAttribute]:
    return (entry for entry in entries if isinstance(entry, RunAttribute))
