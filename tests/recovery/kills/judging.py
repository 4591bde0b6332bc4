"""Holds what a home's journal and its agents' effects say against the model."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.recovery.kills.expected import expect
from tests.recovery.kills.home import Effect
from tests.recovery.kills.workflows import Flow


def query(home: Path, sql: str, *values: object) -> list[sqlite3.Row]:
    """Rows of the home's database, as any program would read them."""
    with closing(sqlite3.connect(home / "registry" / "registry.db", timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(sql, values).fetchall()


def check_run(home: Path, run_id: str, flow: Flow, number: int) -> None:
    expected = expect(flow, number)
    (run,) = query(home, "SELECT * FROM workflow_runs WHERE id = ?", run_id)
    assert run["status"] == expected.status, (run["error_step"], run["error"])
    results = json.loads(run["step_results"])
    steps = {
        row["step_id"]: row
        for row in query(
            home, "SELECT * FROM step_executions WHERE run_id = ? AND item_index = -1", run_id
        )
    }
    assert steps.keys() == expected.states.keys()
    waits = {step.id for step in flow.steps if step.waits_seconds is not None}
    for step_id, row in steps.items():
        state = expected.states[step_id]
        if row["error_code"] == "not_reached":
            assert row["status"] in ("skipped", "cancelled")
            assert step_id in expected.may_stop, f"{step_id} was not reached"
            continue
        assert row["status"] == state, f"{step_id} is {row['status']}, not {state}: {row['error']}"
        if state == "succeeded" and step_id not in waits:
            assert outputs_of(results[step_id]["outputs"]) == expected.outputs[step_id], step_id
    if expected.status == "succeeded":
        assert json.loads(run["outputs"]) == {step: expected.values[step] for step in flow.given}
    else:
        assert run["error_step"] in expected.failed_by


def outputs_of(outputs: Any) -> Any:
    """A step's outputs, with the digest of a file in place of its value."""
    if isinstance(outputs, list):
        return [outputs_of(each) for each in outputs]
    if (document := outputs.pop("document", None)) is not None:
        outputs["document"] = document["$artifact"]
    return outputs


def check_effects(home: Path, run_id: str, flow: Flow, effects: list[Effect]) -> None:
    """Each attempt was made once, in order, and none after the one that the journal tells of."""
    attempts: dict[str, list[tuple[int, str]]] = {}
    for row in query(home, "SELECT * FROM invocations WHERE run_id = ?", run_id):
        assert row["status"] != "running", f"attempt {row['attempt']} of {row['step_id']}"
        attempts.setdefault(key_of(row), []).append((row["attempt"], row["status"]))
    told: dict[str, list[Effect]] = {}
    for effect in effects:
        told.setdefault(effect.key.partition(":")[2], []).append(effect)
    steps = query(home, "SELECT * FROM step_executions WHERE run_id = ?", run_id)
    assert told.keys() <= {key_of(step) for step in steps}, "a key that belongs to no step"
    idle = {step.id for step in flow.steps if not step.executes}
    for step in steps:
        key = key_of(step)
        ended = step["status"] in ("succeeded", "failed", "skipped", "cancelled")
        assert ended, f"{key} is {step['status']} though its run has ended"
        if step["status"] == "skipped" or key in idle:
            assert key not in told, f"{key} was skipped but executed: {told[key]}"
        elif step["status"] != "cancelled":  # it was running when another step's failure ended all
            assert key in attempts, f"{key} is {step['status']} but no attempt is recorded"
            check_attempts(key, step["status"], told.get(key, []), sorted(attempts[key]))


def key_of(row: sqlite3.Row) -> str:
    """What the idempotency key of a step, or of an item of it, ends with."""
    item = row["item_index"]
    return str(row["step_id"]) if item == -1 else f"{row['step_id']}:{item}"


def check_attempts(key: str, status: str, lines: list[Effect], made: list[tuple[int, str]]) -> None:
    counted = Counter((line.word, line.attempt) for line in lines)
    assert set(counted.values()) == {1}, f"an attempt of {key} was made twice: {lines}"
    order = [line.attempt for line in lines]
    assert order == sorted(order), f"an attempt of {key} outlived its successor: {lines}"
    unknown = set(order) - {attempt for attempt, _ in made}
    assert not unknown, f"{key} ({status}): {unknown} of {lines} is not recorded: {made}"
    last, how = made[-1]
    assert order[-1] == last, f"{key}: {lines} but the journal says {made}"
    if status == "succeeded":
        assert [outcome for _, outcome in made].count("ok") == 1
        assert how == "ok"
        assert lines[-1].word == "end"
