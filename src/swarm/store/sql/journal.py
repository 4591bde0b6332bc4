"""Statements that change runs, their steps and their invocations.

Each function is one operation within the writer's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from swarm.kernel.errors import InvalidError, OwnershipLost, RefusedError
from swarm.kernel.json import JsonObject
from swarm.store.records import (
    RUN_FORMAT,
    RunChanges,
    RunRecord,
    StepKey,
    StepRecord,
    TakenRun,
)
from swarm.store.sql import consequences
from swarm.store.sql.connection import Connection, Row, Value
from swarm.store.sql.consequences import Consequences
from swarm.store.sql.history import list_steps
from swarm.store.sql.rows import INVOCATIONS, RUNS, STEPS, Upsert

_FINAL = "('succeeded', 'failed', 'cancelled')"
_SELECT_RUN = f"SELECT {RUNS.column_list} FROM workflow_runs WHERE id = ?"
_CLAIMED = (
    "(SELECT count(*) FROM workflow_runs AS other INDEXED BY idx_runs_slots "
    "WHERE other.project_id = run.project_id AND other.concurrency_key = run.concurrency_key "
    "AND other.concurrency_key IS NOT NULL AND other.epoch > 0 "
    "AND other.status IN ('pending', 'running', 'waiting') AND other.id <> run.id)"
)
"""How many of the places for runs with this run's key are taken by others."""
CLAIM = (
    "UPDATE workflow_runs AS run SET owner = ?, epoch = epoch + 1, wake_at = NULL, "
    f"format_version = {RUN_FORMAT} WHERE id = ? AND owner IS ? "
    f"AND format_version <= {RUN_FORMAT} AND status NOT IN {_FINAL} "
    "AND (status <> 'pending' OR cancel_requested = 1 OR concurrency_key IS NULL "
    f"OR concurrency_limit IS NULL OR {_CLAIMED} < concurrency_limit) "
    f"RETURNING {RUNS.column_list}"
)
_TAKE = (
    "UPDATE workflow_runs SET owner = ?, epoch = epoch + 1, wake_at = NULL, "
    f"format_version = {RUN_FORMAT} WHERE owner IS NULL AND format_version <= {RUN_FORMAT} "
    f"AND status NOT IN {_FINAL} AND (status <> 'pending' "
    "OR cancel_requested = 1 OR concurrency_key IS NULL OR concurrency_limit IS NULL) AND id "
)
TAKE = f"{_TAKE} = ANY(?) RETURNING {RUNS.column_list}"
"""Claims runs without an owner, but those that may have to wait for others."""
TAKE_ONE = f"{_TAKE} = ? RETURNING {RUNS.column_list}"
FEW_STEPS = 32
"""Steps of a run that are read at once; more are read by themselves."""
_FENCE = "WHERE id = ? AND epoch = ? AND (? IS NULL OR owner = ?)"
_STEPS = Upsert(STEPS, key=("run_id", "step_id", "item_index"), keep=("id", "project_id"))
_INVOCATIONS = Upsert(
    INVOCATIONS, key=("id",), keep=("run_id", "agent_id", "step_id", "item_index", "project_id")
)
_NOT_AWAITED = (
    "NOT EXISTS (SELECT 1 FROM workflow_runs AS caller "
    f"WHERE caller.id = workflow_runs.parent_run_id AND caller.status NOT IN {_FINAL})"
)
"""No run goes before its caller has ended: the caller may not have looked yet how it did."""
OLDEST_ENDED = (
    "SELECT id FROM workflow_runs INDEXED BY idx_runs_completed WHERE completed_at IS NOT NULL "
    "AND coalesce(imported_at, completed_at) < ? "
    f"AND status IN {_FINAL} AND {_NOT_AWAITED} "
    "ORDER BY coalesce(imported_at, completed_at) LIMIT ?"
)
_SETTABLE = frozenset(RUNS.columns) - {"id", "epoch", "project_id", "created_at"}
_PURGED = (
    ("invocations", "run_id"),
    ("step_executions", "run_id"),
    ("run_attributes", "run_id"),
    ("answers", "run_id"),
    ("workflow_runs", "id"),
)
"""Tables that hold a run's rows, and where they name it."""
_FORGET_ANSWER = "DELETE FROM answers WHERE run_id = ? AND step_id = ? AND item_index = ?"
_REOPENED: JsonObject = {
    "outputs": None,
    "step_results": {},
    "completed_at": None,
    "error": None,
    "error_code": None,
    "error_step": None,
    "cancel_requested": False,
    "wake_at": None,
}
"""What an ended run loses when it is taken up again."""


class EncodedChanges(Struct, frozen=True):
    """Run changes as rows; made on the caller's side, so that the writer only executes."""

    steps: list[list[Value]]
    invocations: list[list[Value]]
    assignments: str
    """``name = ?, name = ?``, or nothing."""
    values: list[Value]
    consequences: Consequences | None


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
        consequences=consequences.encode(changes),
    )


def encode_reopening(changes: RunChanges) -> EncodedChanges:
    """Encode ``changes`` over what every reopened run loses.

    Raises:
        InvalidError: as :func:`encode_changes`.
    """
    run = {**_REOPENED, **changes.run}
    for name in ("status", "owner"):
        run.pop(name, None)
    return encode_changes(replace(changes, run=run))


def claim(
    connection: Connection, run_id: str, owner: str, expected_owner: str | None
) -> RunRecord | None:
    rows = connection.execute(CLAIM, (owner, run_id, expected_owner)).fetchall()
    return RUNS.decode(rows[0]) if rows else None


def take(connection: Connection, run_ids: Sequence[str], owner: str) -> list[TakenRun]:
    """Claim the runs that can be had at once, with their steps."""
    taken = []
    for run_id in run_ids:
        rows = connection.execute(TAKE_ONE, (owner, run_id)).fetchall()
        if rows:
            steps = list_steps(connection, run_id, FEW_STEPS + 1)
            taken.append(taken_run(RUNS.decode(rows[0]), steps))
    return taken


def taken_run(run: RunRecord, steps: Sequence[StepRecord]) -> TakenRun:
    """``steps`` are the first ``FEW_STEPS + 1`` of the run, if there are as many."""
    return TakenRun(run, tuple(steps) if len(steps) <= FEW_STEPS else None)


class Commit(Struct, frozen=True):
    """A journal commit waiting for its turn."""

    run_id: str
    epoch: int
    changes: EncodedChanges
    owner: str | None = None
    """Compared as well, if given."""

    @property
    def fence(self) -> tuple[str, int, str | None, str | None]:
        """The values of ``_FENCE``."""
        return self.run_id, self.epoch, self.owner, self.owner

    @property
    def rows(self) -> int:
        """How many rows it writes."""
        changes = self.changes
        count = 1 + len(changes.steps) + len(changes.invocations)
        return count if changes.consequences is None else count + changes.consequences.rows


def commit_all(connection: Connection, commits: Sequence[Commit]) -> list[OwnershipLost | None]:
    """Apply those ``commits``, in order, whose run is still theirs; an error for each other."""
    outcomes: list[OwnershipLost | None] = []
    steps: list[Row] = []
    invocations: list[Row] = []
    for commit in commits:
        if not _set_fields(connection, commit):
            outcomes.append(ownership_lost(commit.run_id))
            continue
        changes = commit.changes
        steps += changes.steps
        invocations += changes.invocations
        outcomes.append(None)
        if changes.consequences is not None:
            consequences.apply(connection, changes.consequences)
    _STEPS.run(connection, steps)
    _INVOCATIONS.run(connection, invocations)
    return outcomes


def _set_fields(connection: Connection, commit: Commit) -> bool:
    """Set the fields of the run, if there are any; whether the run has the commit's epoch."""
    changes = commit.changes
    if not changes.assignments:
        row = connection.execute(f"SELECT 1 FROM workflow_runs {_FENCE}", commit.fence).fetchone()
        return row is not None
    updated = connection.execute(
        f"UPDATE workflow_runs SET {changes.assignments} {_FENCE}",
        (*changes.values, *commit.fence),
    )
    return updated.rowcount == 1


def ownership_lost(run_id: str) -> OwnershipLost:
    return OwnershipLost(
        "the run is no longer this host's to write: another host took it over, or it was deleted",
        where=run_id,
        remedy="`swarm runs show` tells how it went on",
    )


def reopen(
    connection: Connection,
    run_id: str,
    owner: str | None,
    changes: EncodedChanges,
    steps: Sequence[StepKey],
) -> RunRecord | None:
    """Take the run up again; ``steps`` are those that change, whose answers are forgotten."""
    reopened = connection.execute(
        f"UPDATE workflow_runs SET {changes.assignments}, status = 'running', owner = ?, "
        f"epoch = epoch + 1, format_version = {RUN_FORMAT} WHERE id = ? AND status IN {_FINAL} "
        f"AND format_version <= {RUN_FORMAT} AND imported_at IS NULL",
        (*changes.values, owner, run_id),
    )
    if not reopened.rowcount:
        if (run := get_run(connection, run_id)) and run.imported_at:
            raise RefusedError(
                "the run was imported: what it was to use is not known to be the same here",
                where=run_id,
                remedy="`swarm runs retry` starts it anew with what is registered here",
            )
        return None
    _STEPS.run(connection, changes.steps)
    _INVOCATIONS.run(connection, changes.invocations)
    if changes.consequences is not None:
        consequences.apply(connection, changes.consequences)
    connection.executemany(_FORGET_ANSWER, [(run_id, *step) for step in steps])
    return get_run(connection, run_id)


def request_cancel(connection: Connection, run_id: str) -> RunRecord | None:
    connection.execute(
        f"UPDATE workflow_runs SET cancel_requested = 1 WHERE id = ? AND status NOT IN {_FINAL}",
        (run_id,),
    )
    return get_run(connection, run_id)


def record_invocation(connection: Connection, invocation: Row) -> None:
    _INVOCATIONS.run(connection, [invocation])


def purge(connection: Connection, completed_before: str, limit: int) -> list[str]:
    """Delete at most ``limit`` ended runs with their rows; return their ids."""
    rows = connection.execute(OLDEST_ENDED, (completed_before, limit)).fetchall()
    return _delete(connection, rows)


def delete_ended(connection: Connection, run_ids: Sequence[str]) -> list[str]:
    """Delete those of these runs that have ended with their rows; return their ids."""
    marks = ", ".join("?" * len(run_ids))
    ended = (
        f"SELECT id FROM workflow_runs WHERE id IN ({marks}) AND status IN {_FINAL} "
        f"AND {_NOT_AWAITED}"
    )
    return _delete(connection, connection.execute(ended, list(run_ids)).fetchall())


def _delete(connection: Connection, rows: Sequence[tuple[str]]) -> list[str]:
    for table, column in _PURGED:
        connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", rows)
    return [run_id for (run_id,) in rows]


def get_run(connection: Connection, run_id: str) -> RunRecord | None:
    row = connection.execute(_SELECT_RUN, (run_id,)).fetchone()
    return RUNS.decode(row) if row else None
