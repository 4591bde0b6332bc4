"""Queries that read runs, their steps and their invocations."""

from __future__ import annotations

import sqlite3

from swarm.store.records import (
    InvocationRecord,
    RunFilter,
    RunRecord,
    RunState,
    StepRecord,
)
from swarm.store.sqlite.rows import INVOCATIONS, RUNS, STEPS, Value

_PREFIX = "run_"
_AFTER_ALL = "\U0010ffff"
"""Sorts behind every character that an id may hold."""
_DOCUMENTS = frozenset({"trigger_data", "inputs", "variables", "outputs", "step_results", "agents"})
"""Columns that may hold megabytes."""
_SUMMARY_COLUMNS = ", ".join(
    name
    if name not in _DOCUMENTS
    else ("NULL AS outputs" if name == "outputs" else f"'{{}}' AS {name}")
    for name in RUNS.columns
)

UNFINISHED = (
    f"SELECT {RUNS.column_list} FROM workflow_runs INDEXED BY idx_runs_status WHERE status IN "
    f"({', '.join(repr(state.value) for state in RunState if not state.is_final)}) ORDER BY id"
)


def find(connection: sqlite3.Connection, prefix: str, limit: int) -> list[RunRecord]:
    start = prefix if prefix.startswith(_PREFIX) else _PREFIX + prefix
    rows = connection.execute(
        f"SELECT {RUNS.column_list} FROM workflow_runs WHERE id >= ? AND id < ? "
        "ORDER BY id LIMIT ?",
        (start, start + _AFTER_ALL, limit),
    )
    return [RUNS.decode(row) for row in rows]


def page_query(run_filter: RunFilter) -> tuple[str, list[Value]]:
    """The ids of the newest runs that pass ``run_filter``, with the values to bind.

    One index range per state, each read from its newest end and no further than the page is long,
    then merged: no filter makes it read more than ``limit`` entries per state.
    """
    conditions = ["project_id = ?"]
    values: list[Value] = [run_filter.project_id]
    for condition, value in (
        ("workflow_name = ?", run_filter.workflow),
        ("owner = ?", run_filter.owner),
        ("id < ?", run_filter.before_id),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if run_filter.owner is not None:
        index = "idx_runs_owner_state"
    elif run_filter.workflow is not None:
        index = "idx_runs_name_state"
    else:
        index = "idx_runs_project_state"
    states = dict.fromkeys(run_filter.states) or tuple(RunState)
    newest = (
        f"SELECT * FROM (SELECT id FROM workflow_runs INDEXED BY {index} "
        f"WHERE {' AND '.join(conditions)} AND status = ? ORDER BY id DESC LIMIT ?)"
    )
    merged = " UNION ALL ".join([newest] * len(states))
    bound = [item for state in states for item in (*values, state.value, run_filter.limit)]
    return f"SELECT id FROM ({merged}) ORDER BY id DESC LIMIT ?", [*bound, run_filter.limit]


def list_page(connection: sqlite3.Connection, run_filter: RunFilter) -> list[RunRecord]:
    page, values = page_query(run_filter)
    columns = RUNS.column_list if run_filter.documents else _SUMMARY_COLUMNS
    rows = connection.execute(
        f"SELECT {columns} FROM workflow_runs WHERE id IN ({page}) ORDER BY id DESC", values
    )
    return [RUNS.decode(row) for row in rows]


def list_unfinished(connection: sqlite3.Connection) -> list[RunRecord]:
    return [RUNS.decode(row) for row in connection.execute(UNFINISHED)]


def list_steps(connection: sqlite3.Connection, run_id: str) -> list[StepRecord]:
    rows = connection.execute(
        f"SELECT {STEPS.column_list} FROM step_executions WHERE run_id = ? ORDER BY rowid",
        (run_id,),
    )
    return [STEPS.decode(row) for row in rows]


def list_invocations(connection: sqlite3.Connection, run_id: str) -> list[InvocationRecord]:
    rows = connection.execute(
        f"SELECT {INVOCATIONS.column_list} FROM invocations WHERE run_id = ? ORDER BY rowid",
        (run_id,),
    )
    return [INVOCATIONS.decode(row) for row in rows]
