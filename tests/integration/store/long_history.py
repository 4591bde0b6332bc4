"""Fills a database with a long history, by copies of runs that were recorded as ever."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from swarm.kernel.clock import to_text
from swarm.store.ports import Store
from swarm.store.records import (
    AgentRecord,
    InvocationRecord,
    NewRun,
    RunChanges,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
    WorkflowRecord,
)
from swarm.store.sql.rows import INVOCATIONS, RUNS, STEPS, Rows

STEPS_PER_RUN = 5
WORKFLOWS = 10
CHUNK = 10_000
"""Runs copied in one transaction."""
SECONDS_BETWEEN_RUNS = 9
START = datetime(2026, 1, 1, tzinfo=UTC)
TEMPLATE = "run_" + "0" * 32
_MILLISECONDS = f"({int(START.timestamp() * 1000)} + ({{n}}) * {SECONDS_BETWEEN_RUNS * 1000})"
_RUN_ID = f"printf('run_%012x7%03x%016x', {_MILLISECONDS}, ({{n}}) % 4096, {{n}})"
_TIME = (
    f"strftime('%Y-%m-%dT%H:%M:%f', {_MILLISECONDS.format(n='n')} / 1000.0, 'unixepoch') || '000Z'"
)
_STATUS = "CASE n % 100 WHEN 0 THEN 'failed' WHEN 1 THEN 'cancelled' ELSE 'succeeded' END"
_SERIES = (
    "WITH RECURSIVE series(n) AS (VALUES (:first) UNION ALL "
    "SELECT n + 1 FROM series WHERE n + 1 < :end) "
)


@dataclass(frozen=True)
class History:
    """What a filled database holds."""

    runs: int

    @property
    def end(self) -> datetime:
        return START + timedelta(seconds=self.runs * SECONDS_BETWEEN_RUNS)

    def moment(self, share: float) -> str:
        """When that share of the runs had been created."""
        return to_text(START + (self.end - START) * share)


def workflow_name(number: int) -> str:
    return f"flow-{number}"


async def record_template(store: Store) -> None:
    """One run with its steps and invocations, and what they refer to."""
    agent = AgentRecord("agent_1", "echo", "1.0.0", "sha256:a", "/p", "/s", {"name": "echo"})
    await store.add_agent(agent)
    for number in range(WORKFLOWS):
        name = workflow_name(number)
        workflow = WorkflowRecord(f"wf_{number}", name, "1.0.0", f"sha256:{name}", "/w", {})
        await store.add_workflow(workflow)
    run = RunRecord(TEMPLATE, "wf_0", workflow_name(0), "1.0.0", inputs={"message": "x" * 200})
    await store.create_run(NewRun(run, tuple(step(run, number) for number in range(STEPS_PER_RUN))))
    ended = tuple(
        replace(step(run, number), status=StepState.SUCCEEDED, outputs={"said": "y" * 200})
        for number in range(STEPS_PER_RUN)
    )
    calls = tuple(invocation(run, number) for number in range(STEPS_PER_RUN))
    await store.commit(
        run.id, 0, RunChanges(ended, calls, {"status": RunState.SUCCEEDED, "completed_at": "x"})
    )


def step(run: RunRecord, number: int) -> StepRecord:
    return StepRecord(
        f"step_{run.id[4:]}_{number}", run.id, f"s{number}", agent_id="agent_1", agent_name="echo",
        agent_version="1.0.0", inputs={"message": "x" * 200},
    )  # fmt: skip


def invocation(run: RunRecord, number: int) -> InvocationRecord:
    return InvocationRecord(
        f"inv_{run.id[4:]}_{number}", "agent_1", "echo", "1.0.0", "sha256:a", "ok", run.id,
        f"s{number}", wall_ms=3, cpu_ms=2, layers=("pid", "net"),
    )  # fmt: skip


def fill(database: Path, runs: int) -> History:
    """Copy the template until there are that many runs."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        for first in range(0, runs, CHUNK):
            bounds = {"first": first, "end": min(first + CHUNK, runs), "template": TEMPLATE}
            connection.execute("BEGIN")
            for statement in _copies():
                connection.execute(_SERIES + statement, bounds)
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return History(runs)


def _copies() -> list[str]:
    """Every tenth run was called by the one that began its ten."""
    run_id = _RUN_ID.format(n="n")
    parent = f"CASE n % 10 WHEN 9 THEN {_RUN_ID.format(n='n - 9')} END"
    number = "CAST(substr(copied.step_id, 2) AS INTEGER)"
    times = dict.fromkeys(("created_at", "started_at", "completed_at", "queued_at"), _TIME)
    return [
        _copy(RUNS, "id", {
            **times, "id": run_id, "status": _STATUS, "parent_run_id": parent,
            "workflow_id": f"'wf_' || (n % {WORKFLOWS})",
            "workflow_name": f"'flow-' || (n % {WORKFLOWS})",
        }),
        _copy(STEPS, "run_id", {
            **times, "id": f"'step_' || substr({run_id}, 5) || '_' || {number}", "run_id": run_id,
        }),
        _copy(INVOCATIONS, "run_id", {
            **times, "id": f"'inv_' || substr({run_id}, 5) || '_' || {number}", "run_id": run_id,
        }),
        *(
            "INSERT INTO run_attributes (kind, name, value, run_id) "
            f"SELECT {kind}, {value}, {run_id} FROM series WHERE {condition}"
            for kind, value, condition in (
                ("'label', 'env'", "CASE n % 2 WHEN 0 THEN 'prod' ELSE 'test' END", "true"),
                ("'label', 'half'", "'late'", "n % 2 = 1"),
                ("'label', 'rare'", "'yes'", "n % 1000 = 0"),
                ("'input', 'order'", "'order-' || n", "true"),
            )
        ),
    ]  # fmt: skip


def _copy(rows: Rows[Any], key: str, changes: Mapping[str, str]) -> str:
    values = (changes.get(name, f"copied.{name}") for name in rows.columns)
    return (
        f"INSERT INTO {rows.table} ({rows.column_list}) SELECT {', '.join(values)} "
        f"FROM series CROSS JOIN {rows.table} AS copied WHERE copied.{key} = :template "
        "ORDER BY n"
    )
