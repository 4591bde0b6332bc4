"""Statements that change runs, their steps and their invocations.

Each function is one operation within the writer's transaction. One that raises a SwarmError has
changed nothing; the writer relies on it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from swarm.kernel.errors import InvalidError, OwnershipLost
from swarm.kernel.json import JsonObject
from swarm.store.records import RunChanges, RunRecord
from swarm.store.sqlite.rows import INVOCATIONS, RUNS, STEPS, Value

_FINAL = "('succeeded', 'failed', 'cancelled')"
_SELECT_RUN = f"SELECT {RUNS.column_list} FROM workflow_runs WHERE id = ?"
_INSERT_RUN = RUNS.insert()
_UPSERT_STEP = STEPS.upsert(key=("run_id", "step_id", "item_index"), keep=("id", "project_id"))
_UPSERT_INVOCATION = INVOCATIONS.upsert(
    key=("id",), keep=("run_id", "agent_id", "step_id", "item_index", "project_id")
)
_SETTABLE = frozenset(RUNS.columns) - {"id", "epoch", "project_id", "created_at"}
_REOPENED: JsonObject = {
    "outputs": None,
    "step_results": {},
    "completed_at": None,
    "error": None,
    "error_code": None,
    "error_step": None,
    "cancel_requested": False,
}
"""What an ended run loses when it is taken up again."""

Row = Sequence[Value]


@dataclass(frozen=True, slots=True)
class EncodedChanges:
    """Run changes as rows; made on the caller's side, so that the writer only executes."""

    steps: list[list[Value]]
    invocations: list[list[Value]]
    assignments: str
    """``name = ?, name = ?``, or nothing."""
    values: list[Value]


def encode_changes(changes: RunChanges) -> EncodedChanges:
    """Encode ``changes``.

    Raises:
        InvalidError: a value is not JSON, or ``run`` names a field that cannot be set.
    """
    if not changes.run.keys() <= _SETTABLE:
        unknown = ", ".join(sorted(changes.run.keys() - _SETTABLE))
        raise InvalidError(f"these fields of a run cannot be set: {unknown}")
    return EncodedChanges(
        steps=[STEPS.encode(step) for step in changes.steps],
        invocations=[INVOCATIONS.encode(invocation) for invocation in changes.invocations],
        assignments=", ".join(f"{name} = ?" for name in changes.run),
        values=[RUNS.encode_field(name, value) for name, value in changes.run.items()],
    )


def encode_reopening(changes: RunChanges) -> EncodedChanges:
    """Encode ``changes`` over what every reopened run loses.

    Raises:
        InvalidError: as :func:`encode_changes`.
    """
    run = {**_REOPENED, **changes.run}
    for name in ("status", "owner"):
        run.pop(name, None)
    return encode_changes(RunChanges(changes.steps, changes.invocations, run))


def create(connection: sqlite3.Connection, run: Row, steps: Sequence[Row]) -> None:
    connection.execute(_INSERT_RUN, run)
    connection.executemany(_UPSERT_STEP, steps)


def claim(
    connection: sqlite3.Connection, run_id: str, owner: str, expected_owner: str | None
) -> RunRecord | None:
    claimed = connection.execute(
        "UPDATE workflow_runs SET owner = ?, epoch = epoch + 1 "
        f"WHERE id = ? AND owner IS ? AND status NOT IN {_FINAL}",
        (owner, run_id, expected_owner),
    )
    return get_run(connection, run_id) if claimed.rowcount else None


def commit(
    connection: sqlite3.Connection, run_id: str, epoch: int, changes: EncodedChanges
) -> None:
    """Apply ``changes`` if ``epoch`` is the run's. Raises OwnershipLost if not."""
    if changes.assignments:
        fenced = connection.execute(
            f"UPDATE workflow_runs SET {changes.assignments} WHERE id = ? AND epoch = ?",
            (*changes.values, run_id, epoch),
        )
        owned = fenced.rowcount > 0
    else:
        owned = (
            connection.execute(
                "SELECT 1 FROM workflow_runs WHERE id = ? AND epoch = ?", (run_id, epoch)
            ).fetchone()
            is not None
        )
    if not owned:
        raise OwnershipLost(
            "the run is no longer this host's to write: another host took it over, "
            "or it was deleted",
            where=run_id,
            remedy="`swarm runs show` tells how it went on",
        )
    _write(connection, changes)


def reopen(
    connection: sqlite3.Connection, run_id: str, owner: str, changes: EncodedChanges
) -> RunRecord | None:
    reopened = connection.execute(
        f"UPDATE workflow_runs SET {changes.assignments}, status = 'running', owner = ?, "
        f"epoch = epoch + 1 WHERE id = ? AND status IN {_FINAL}",
        (*changes.values, owner, run_id),
    )
    if not reopened.rowcount:
        return None
    _write(connection, changes)
    return get_run(connection, run_id)


def request_cancel(connection: sqlite3.Connection, run_id: str) -> RunRecord | None:
    connection.execute(
        f"UPDATE workflow_runs SET cancel_requested = 1 WHERE id = ? AND status NOT IN {_FINAL}",
        (run_id,),
    )
    return get_run(connection, run_id)


def record_invocation(connection: sqlite3.Connection, invocation: Row) -> None:
    connection.execute(_UPSERT_INVOCATION, invocation)


def purge(connection: sqlite3.Connection, completed_before: str, limit: int) -> list[str]:
    """Delete at most ``limit`` ended runs with their rows; return their ids."""
    rows = connection.execute(
        "SELECT id FROM workflow_runs WHERE completed_at < ? "
        f"AND status IN {_FINAL} ORDER BY completed_at LIMIT ?",
        (completed_before, limit),
    ).fetchall()
    for table, column in (
        ("invocations", "run_id"),
        ("step_executions", "run_id"),
        ("workflow_runs", "id"),
    ):
        connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", rows)
    return [run_id for (run_id,) in rows]


def get_run(connection: sqlite3.Connection, run_id: str) -> RunRecord | None:
    row = connection.execute(_SELECT_RUN, (run_id,)).fetchone()
    return RUNS.decode(row) if row else None


def _write(connection: sqlite3.Connection, changes: EncodedChanges) -> None:
    for step in changes.steps:
        connection.execute(_UPSERT_STEP, step)
    for invocation in changes.invocations:
        connection.execute(_UPSERT_INVOCATION, invocation)
