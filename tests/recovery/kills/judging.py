"""Holds what a home's journal and its agents' effects say against the model."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

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
    steps = {
        row["step_id"]: row
        for row in query(home, "SELECT * FROM step_executions WHERE run_id = ?", run_id)
    }
    assert list(steps) == [step.id for step in flow.steps]
    for step_id, row in steps.items():
        state = expected.states[step_id]
        if row["error_code"] == "not_reached":
            assert row["status"] in ("skipped", "cancelled")
            assert step_id in expected.may_stop, f"{step_id} was not reached"
            continue
        assert row["status"] == state, f"{step_id} is {row['status']}, not {state}: {row['error']}"
        if state == "succeeded":
            assert outputs_of(row["outputs"]) == expected.outputs[step_id], step_id
    if expected.status == "succeeded":
        values = {step: expected.outputs[step]["value"] for step in flow.given}
        assert json.loads(run["outputs"]) == values
    else:
        assert run["error_step"] in expected.failed_by


def outputs_of(text: str) -> dict[str, object]:
    """A step's outputs, with the digest of a file in place of its value."""
    outputs = json.loads(text)
    if (document := outputs.pop("document", None)) is not None:
        outputs["document"] = document["$artifact"]
    return outputs


def check_effects(home: Path, run_id: str, effects: list[Effect]) -> None:
    """Each attempt was made once, in order, and none after the one that the journal tells of."""
    steps = query(home, "SELECT * FROM step_executions WHERE run_id = ?", run_id)
    attempts: dict[str, list[tuple[int, str]]] = {}
    for row in query(home, "SELECT * FROM invocations WHERE run_id = ?", run_id):
        assert row["status"] != "running", f"attempt {row['attempt']} of {row['step_id']}"
        attempts.setdefault(row["step_id"], []).append((row["attempt"], row["status"]))
    told: dict[str, list[Effect]] = {}
    for effect in effects:
        told.setdefault(effect.key.partition(":")[2], []).append(effect)
    assert told.keys() <= {step["step_id"] for step in steps}, "a key that belongs to no step"
    for step in steps:
        lines = told.get(step["step_id"], [])
        if step["status"] == "cancelled":
            continue  # it was running when its host died, after another step's failure
        if step["status"] == "skipped":
            assert not lines, f"{step['step_id']} was skipped but executed: {lines}"
            continue
        made = sorted(attempts[step["step_id"]])
        counted = Counter((line.word, line.attempt) for line in lines)
        assert set(counted.values()) == {1}, f"an attempt was made twice: {lines}"
        order = [line.attempt for line in lines]
        assert order == sorted(order), f"an attempt outlived its successor: {lines}"
        assert set(order) <= {attempt for attempt, _ in made}
        last = made[-1]
        assert order[-1] == last[0], f"{step['step_id']}: {lines} but the journal says {made}"
        if step["status"] == "succeeded":
            assert [status for _, status in made].count("ok") == 1
            assert last[1] == "ok"
            assert lines[-1].word == "end"
