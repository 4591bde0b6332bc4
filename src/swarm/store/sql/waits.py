"""Runs and steps that wait: giving a run up, what ends a wait, and who is next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from swarm.kernel.errors import OwnershipLost
from swarm.store.records import AnswerRecord, RunRecord, StepRecord
from swarm.store.sql.connection import Connection, Row
from swarm.store.sql.history import SUMMARY_COLUMNS
from swarm.store.sql.journal import Commit, commit_all
from swarm.store.sql.rows import JSON, RUNS, STEPS, Rows

Apply: TypeAlias = Callable[[Connection, Sequence[Commit]], list[OwnershipLost | None]]

ANSWERS = Rows("answers", AnswerRecord, {"data": JSON})
_GIVE_UP = "UPDATE workflow_runs SET owner = NULL WHERE id = ?"
_NOT_TAKEN = (
    "NOT EXISTS (SELECT 1 FROM step_executions AS had WHERE had.run_id = run.id "
    "AND had.wait_kind = 'event' AND json_extract(had.wait_details, '$.event_id') = event.id)"
)
"""Of an event: that no step of the run has had it."""
_EVENT = (
    "EXISTS (SELECT 1 FROM step_executions AS step INDEXED BY idx_steps_waiting_run "
    "JOIN events AS event ON event.project_id = step.project_id AND event.name = step.wait_name "
    "WHERE step.run_id = run.id AND step.status = 'waiting' AND step.wait_kind = 'event' "
    f"AND event.received_at > run.created_at AND {_NOT_TAKEN} AND"
)
_CALLED = (
    "JOIN workflow_runs AS child ON child.id = step.child_run_id "
    "WHERE step.run_id = run.id AND step.status = 'running' AND child.status IN "
    "('succeeded', 'failed', 'cancelled')"
)
"""Of a run: that one which a step of it calls has ended, and the step does not know of it."""
NEWS = (
    "SELECT run.cancel_requested = 1 OR EXISTS (SELECT 1 FROM answers AS answer "
    "JOIN step_executions AS step ON step.run_id = answer.run_id "
    "AND step.step_id = answer.step_id AND step.item_index = answer.item_index "
    "WHERE answer.run_id = run.id AND step.status = 'waiting') "
    f"OR {_EVENT} step.wait_key IS NULL) OR {_EVENT} event.key = step.wait_key) "
    f"OR EXISTS (SELECT 1 FROM step_executions AS step INDEXED BY idx_steps_run {_CALLED}) "
    "FROM workflow_runs AS run WHERE run.id = ?"
)
_ASLEEP = "wake_at IS NOT NULL AND status = 'waiting' AND owner IS NULL"
DUE = (
    "SELECT id FROM workflow_runs INDEXED BY idx_runs_wake "
    f"WHERE {_ASLEEP} AND wake_at <= ? ORDER BY wake_at LIMIT ?"
)
_WAITING_FOR_EVENT = (
    "SELECT step.run_id FROM step_executions AS step INDEXED BY idx_steps_awaited "
    "JOIN workflow_runs AS run ON run.id = step.run_id WHERE step.status = 'waiting' "
    "AND step.wait_kind = 'event' AND EXISTS (SELECT 1 FROM events AS event "
    "WHERE event.project_id = step.project_id AND event.name = step.wait_name "
    f"AND event.received_at > run.created_at AND {_NOT_TAKEN} AND"
)
ANSWERED = (
    "SELECT id FROM workflow_runs WHERE id IN ("
    "SELECT step.run_id FROM step_executions AS step INDEXED BY idx_steps_waiting "
    "JOIN answers AS answer ON answer.run_id = step.run_id AND answer.step_id = step.step_id "
    "AND answer.item_index = step.item_index WHERE step.status = 'waiting' "
    f"UNION ALL {_WAITING_FOR_EVENT} step.wait_key IS NULL) "
    f"UNION ALL {_WAITING_FOR_EVENT} event.key = step.wait_key)"
    " UNION ALL SELECT id FROM workflow_runs INDEXED BY idx_runs_cancelled "
    "WHERE status = 'waiting' AND cancel_requested = 1"
    " UNION ALL SELECT run.id FROM workflow_runs AS run INDEXED BY idx_runs_status "
    "WHERE run.status = 'waiting' AND run.owner IS NULL "
    "AND EXISTS (SELECT 1 FROM workflow_runs AS called INDEXED BY idx_runs_parent_state "
    "WHERE called.parent_run_id = run.id) "
    "AND EXISTS (SELECT 1 FROM step_executions AS step INDEXED BY idx_steps_run "
    f"{_CALLED})"
    ") AND status || '' = 'waiting' AND owner IS NULL ORDER BY id LIMIT ?"
)
"""Reads the steps that wait, of all runs, and the runs: there are far fewer of those than of any
others."""
NEXT_WAKE = (
    "SELECT wake_at FROM workflow_runs INDEXED BY idx_runs_wake "
    f"WHERE {_ASLEEP} AND wake_at > ? ORDER BY wake_at LIMIT 1"
)
QUEUED = (
    f"SELECT {SUMMARY_COLUMNS} FROM workflow_runs INDEXED BY idx_runs_queue "
    "WHERE project_id = ? AND concurrency_key = ? AND epoch = 0 AND status = 'pending' "
    "ORDER BY priority DESC, id LIMIT ?"
)
_ANSWER = (
    f"INSERT INTO answers ({ANSWERS.column_list}) "
    f"SELECT {', '.join('?' * len(ANSWERS.columns))} WHERE EXISTS "
    "(SELECT 1 FROM step_executions WHERE run_id = ? AND step_id = ? AND item_index = ? "
    "AND status = 'waiting' AND wait_kind = 'approval') "
    "ON CONFLICT (run_id, step_id, item_index) DO NOTHING"
)
LIST_ANSWERS = (
    f"SELECT {ANSWERS.column_list} FROM answers WHERE run_id = ? ORDER BY step_id, item_index"
)
WAITING = (
    f"SELECT {STEPS.column_list} FROM step_executions INDEXED BY idx_steps_waiting "
    "WHERE project_id = ? AND wait_kind = ? AND status = 'waiting' ORDER BY id LIMIT ?"
)


def release(connection: Connection, commit: Commit, apply: Apply = commit_all) -> bool:
    """Apply ``commit`` and give its run up, unless something has come that the run waits for.

    ``apply`` applies it, and keeps others from making it untrue meanwhile.
    """
    connection.execute("SAVEPOINT release")
    (lost,) = apply(connection, [commit])
    if lost is not None:
        raise lost
    connection.execute(_GIVE_UP, (commit.run_id,))
    (has_news,) = connection.execute(NEWS, (commit.run_id,)).fetchone()
    if has_news:
        connection.execute("ROLLBACK TO release")
    connection.execute("RELEASE release")
    return not has_news


def due(connection: Connection, moment: str, limit: int) -> list[str]:
    return [run_id for (run_id,) in connection.execute(DUE, (moment, limit))]


def ready(connection: Connection, moment: str, limit: int) -> list[str]:
    found = due(connection, moment, limit)
    answered = [run_id for (run_id,) in connection.execute(ANSWERED, (limit,))]
    return list(dict.fromkeys([*found, *answered]))[:limit]


def next_wake(connection: Connection, after: str) -> str | None:
    row = connection.execute(NEXT_WAKE, (after,)).fetchone()
    return str(row[0]) if row else None


def queued(
    connection: Connection, concurrency_key: str, project_id: str, limit: int
) -> list[RunRecord]:
    rows = connection.execute(QUEUED, (project_id, concurrency_key, limit))
    return [RUNS.decode(row) for row in rows]


def answer(connection: Connection, record: AnswerRecord, row: Row) -> bool:
    step = (record.run_id, record.step_id, record.item_index)
    return connection.execute(_ANSWER, (*row, *step)).rowcount > 0


def list_answers(connection: Connection, run_id: str) -> list[AnswerRecord]:
    return [ANSWERS.decode(row) for row in connection.execute(LIST_ANSWERS, (run_id,))]


def waiting_steps(
    connection: Connection, kind: str, limit: int, project_id: str
) -> list[StepRecord]:
    rows = connection.execute(WAITING, (project_id, kind, limit))
    return [STEPS.decode(row) for row in rows]
