"""Queries that read runs, their steps and their invocations."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.store.records import InvocationRecord, RunFilter, RunRecord, RunState, StepRecord
from swarm.store.sql.connection import Connection
from swarm.store.sql.pages import narrowest, page_query
from swarm.store.sql.rows import INVOCATIONS, RUNS, STEPS

IDS_PER_QUERY = 500
_PREFIX = "run_"
_ALL = 2**63 - 1
_AFTER_ALL = "\U0010ffff"
"""Sorts behind every character that an id may hold."""
_DOCUMENTS = frozenset(
    {
        "trigger_data",
        "inputs",
        "variables",
        "outputs",
        "step_results",
        "agents",
        "workflows",
        "overrides",
    }
)
"""Columns that may hold megabytes."""
SUMMARY_COLUMNS = ", ".join(
    name
    if name not in _DOCUMENTS
    else ("NULL AS outputs" if name == "outputs" else f"'{{}}' AS {name}")
    for name in RUNS.columns
)

_OF_STATE = (
    "SELECT * FROM (SELECT id FROM workflow_runs INDEXED BY idx_runs_status "
    "WHERE status = '{}' AND id > ? ORDER BY id LIMIT ?) AS {}"
)
_DRIVEN = (
    "SELECT * FROM (SELECT id FROM workflow_runs INDEXED BY idx_runs_driven WHERE "
    "status = 'waiting' AND owner IS NOT NULL AND id > ? ORDER BY id LIMIT ?) AS driven"
)


def unfinished_query(*states: str) -> str:
    """The runs in these states and those that somebody drives while they wait, a page of them:
    each index is read no further than the page is long. An id and a limit are given for each, and
    the limit of all."""
    parts = [*(_OF_STATE.format(state, state) for state in states), _DRIVEN]
    return (
        f"SELECT {SUMMARY_COLUMNS} FROM workflow_runs WHERE id IN (SELECT id FROM "
        f"({' UNION ALL '.join(parts)}) AS found ORDER BY id LIMIT ?) ORDER BY id"
    )


UNFINISHED = unfinished_query("pending", "running")
BEGUN = unfinished_query("running")


def find(connection: Connection, prefix: str, limit: int) -> list[RunRecord]:
    start = prefix if prefix.startswith(_PREFIX) else _PREFIX + prefix
    rows = connection.execute(
        f"SELECT {RUNS.column_list} FROM workflow_runs WHERE id >= ? AND id < ? "
        "ORDER BY id LIMIT ?",
        (start, start + _AFTER_ALL, limit),
    )
    return [RUNS.decode(row) for row in rows]


def owners(
    connection: Connection, run_ids: Sequence[str]
) -> dict[str, tuple[RunState, str | None]]:
    """The states and owners of runs, without those that are not there."""
    found: dict[str, tuple[RunState, str | None]] = {}
    for first in range(0, len(run_ids), IDS_PER_QUERY):
        some = run_ids[first : first + IDS_PER_QUERY]
        marks = ", ".join("?" * len(some))
        rows = connection.execute(
            f"SELECT id, status, owner FROM workflow_runs WHERE id IN ({marks})", some
        )
        found.update((run_id, (RunState(status), owner)) for run_id, status, owner in rows)
    return found


def list_page(connection: Connection, run_filter: RunFilter) -> list[RunRecord]:
    page, values = page_query(run_filter, narrowest(connection, run_filter))
    columns = RUNS.column_list if run_filter.documents else SUMMARY_COLUMNS
    rows = connection.execute(
        f"SELECT {columns} FROM workflow_runs WHERE id IN ({page}) ORDER BY id DESC", values
    )
    return [RUNS.decode(row) for row in rows]


def list_unfinished(
    connection: Connection, after: str, limit: int, *, begun: bool
) -> list[RunRecord]:
    query, ranges = (BEGUN, 2) if begun else (UNFINISHED, 3)
    rows = connection.execute(query, (*[after, limit] * ranges, limit))
    return [RUNS.decode(row) for row in rows]


def list_steps(connection: Connection, run_id: str, limit: int | None = None) -> list[StepRecord]:
    """The steps of a run in the order they were created, or the first ``limit`` of them."""
    rows = connection.execute(
        f"SELECT {STEPS.column_list} FROM step_executions WHERE run_id = ? ORDER BY rowid LIMIT ?",
        (run_id, _ALL if limit is None else limit),
    )
    return [STEPS.decode(row) for row in rows]


def list_invocations(connection: Connection, run_id: str) -> list[InvocationRecord]:
    rows = connection.execute(
        f"SELECT {INVOCATIONS.column_list} FROM invocations WHERE run_id = ? ORDER BY rowid",
        (run_id,),
    )
    return [INVOCATIONS.decode(row) for row in rows]
