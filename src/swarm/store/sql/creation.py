"""Statements that record new runs, with their steps and what they can be found by."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from swarm.kernel.clock import now_text
from swarm.store.attributes import checked_attributes
from swarm.store.records import NewRun, RunRecord
from swarm.store.sql.connection import Connection, Row
from swarm.store.sql.rows import RUNS, STEPS, Upsert

_INSERT = RUNS.insert()
INSERT_UNLESS_THERE = f"{_INSERT} ON CONFLICT (id) DO NOTHING"
PUT_STEPS = Upsert(STEPS, key=("run_id", "step_id", "item_index"), keep=("id", "project_id"))
_INSERT_ATTRIBUTE = (
    "INSERT INTO run_attributes (project_id, kind, name, value, run_id) VALUES (?, ?, ?, ?, ?)"
)
SAME_KEY = (
    f"SELECT {RUNS.column_list} FROM workflow_runs "
    "WHERE project_id = ? AND workflow_name = ? AND idempotency_key = ?"
)


class EncodedRun(Struct, frozen=True):
    """A new run as rows; made on the caller's side, so that the writer only executes."""

    record: RunRecord
    run: Row
    steps: list[Row]
    attributes: list[Row]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return 1 + len(self.steps) + len(self.attributes)


def encode(new: NewRun) -> EncodedRun:
    """Encode ``new``, created now unless it says when.

    Raises:
        InvalidError: a value is not JSON, or there are too many attributes.
    """
    run = new.run if new.run.created_at else replace(new.run, created_at=now_text())
    return EncodedRun(
        run,
        RUNS.encode(run),
        [STEPS.encode(step) for step in new.steps],
        [
            (run.project_id, one.kind, one.name, one.value, run.id)
            for one in checked_attributes(new.attributes)
        ],
    )


def create(connection: Connection, new: EncodedRun) -> RunRecord:
    """Insert the run, unless its idempotency key has one; return the run that stands."""
    if (standing := same_key(connection, new.record)) is not None:
        return standing
    connection.execute(_INSERT, new.run)
    PUT_STEPS.run(connection, new.steps)
    add_attributes(connection, new)
    return new.record


def create_unless_there(connection: Connection, new: EncodedRun) -> bool:
    """Insert the run unless there is one with its id; whether there was none."""
    if not connection.execute(INSERT_UNLESS_THERE, new.run).rowcount:
        return False
    PUT_STEPS.run(connection, new.steps)
    add_attributes(connection, new)
    return True


def same_key(connection: Connection, run: RunRecord) -> RunRecord | None:
    """The run that has the idempotency key of ``run``."""
    if run.idempotency_key is None:
        return None
    key = (run.project_id, run.workflow_name, run.idempotency_key)
    row = connection.execute(SAME_KEY, key).fetchone()
    return RUNS.decode(row) if row else None


def add_attributes(connection: Connection, new: EncodedRun) -> None:
    if new.attributes:
        connection.executemany(_INSERT_ATTRIBUTE, new.attributes)
