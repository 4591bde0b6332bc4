"""Holds what a home's journal and its agents' effects say against the model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any

from tests.recovery.kills.expected import Expected, action_states, expect
from tests.recovery.kills.home import Effect
from tests.recovery.kills.journal import Journal, Row, query
from tests.recovery.kills.workflows import Flow

CUTS = ("cancelled", "budget")
"""Error codes of runs that were cut short."""


def check_run(
    home: Journal, run_id: str, flow: Flow, number: int, cuts: Collection[str] = ()
) -> None:
    """``cuts``: what may have ended the run early, ``cancelled`` or ``budget``."""
    expected = expect(flow, number)
    (run,) = query(home, "SELECT * FROM workflow_runs WHERE id = ?", run_id)
    cut = run["error_code"] if run["error_code"] in CUTS else None
    if cut is None:
        assert run["status"] == expected.status, (run["error_step"], run["error"])
        assert not flow.is_short or expected.failed_by, "the budget is not used up"
    else:
        assert cut in cuts, f"nothing should have cut the run short, but: {run['error']}"
    steps = {
        row["step_id"]: row
        for row in query(
            home, "SELECT * FROM step_executions WHERE run_id = ? AND item_index = -1", run_id
        )
    }
    actions = action_states(flow, run["status"])
    assert steps.keys() == expected.states.keys() | actions.keys()
    check_outputs(json.loads(run["step_results"]), steps, flow, expected)
    for step_id, row in steps.items():
        state = actions.get(step_id) or expected.states[step_id]
        if row["error_code"] == "not_reached":
            assert row["status"] in ("skipped", "cancelled")
            may_stop = actions.get(step_id) == "skipped" or step_id in expected.may_stop
            assert may_stop or (cut and step_id not in actions), f"{step_id} was not reached"
        elif row["error_code"] == "budget":
            assert "budget" in cuts
        elif row["status"] == "cancelled":
            assert cut, f"{step_id} was cancelled"
            assert step_id not in actions
        else:
            told = f"{step_id} is {row['status']}, not {state}: {row['error']}"
            assert row["status"] == state, told
    if run["status"] == "succeeded":
        assert json.loads(run["outputs"]) == {step: expected.values[step] for step in flow.given}
    elif cut is None:
        assert run["error_step"] in expected.failed_by


def check_outputs(results: Any, rows: dict[str, Row], flow: Flow, expected: Expected) -> None:
    waits = {step.id for step in flow.steps if step.only_waits}
    for step_id, outputs in expected.outputs.items():
        if rows[step_id]["status"] != "succeeded":
            continue
        given = outputs_of(results[step_id]["outputs"])
        if step_id in waits:  # who answered, and when, is not known beforehand
            given = {name: given[name] for name in outputs}
        assert given == outputs, step_id


def outputs_of(outputs: Any) -> Any:
    """A step's outputs, with the digest of a file in place of its value."""
    if isinstance(outputs, list):
        return [outputs_of(each) for each in outputs]
    if (document := outputs.pop("document", None)) is not None:
        outputs["document"] = document["$artifact"]
    return outputs


def check_effects(
    home: Journal,
    run_id: str,
    flow: Flow,
    effects: list[Effect],
    *,
    may_overlap: bool = False,
) -> None:
    """Each attempt was made once, in order, and none after the one that the journal tells of.

    ``may_overlap``: whether an attempt may outlive the lease of its host, and so its successor.
    """
    attempts: dict[str, list[tuple[int, str]]] = {}
    for row in query(home, "SELECT * FROM invocations WHERE run_id = ?", run_id):
        assert row["status"] != "running", f"attempt {row['attempt']} of {row['step_id']}"
        how = "refused" if row["error_code"] == "budget" else row["status"]
        attempts.setdefault(key_of(row), []).append((row["attempt"], how))
    told: dict[str, list[Effect]] = {}
    for effect in effects:
        told.setdefault(effect.key.partition(":")[2], []).append(effect)
    steps = query(home, "SELECT * FROM step_executions WHERE run_id = ?", run_id)
    assert told.keys() <= {key_of(step) for step in steps}, "a key that belongs to no step"
    idle = {step.id for step in flow.steps if not step.executes}
    calls = {step.id for step in flow.steps if step.calls is not None}
    for step in steps:
        key = key_of(step)
        lines, made = told.get(key, []), sorted(attempts.get(key, []))
        ended = step["status"] in ("succeeded", "failed", "skipped", "cancelled")
        assert ended, f"{key} is {step['status']} though its run has ended"
        check_attempts(key, lines, made, may_overlap)
        if step["status"] == "skipped" or key in idle or step["step_id"] in calls:
            assert not lines, f"{key} was skipped but executed: {lines}"
        elif step["reused_from"] is not None:
            assert "ok" not in [how for _, how in made], f"{key} was reused, and executed"
        elif step["status"] != "cancelled" and step["error_code"] != "budget":
            check_last(key, step["status"], lines, made)


def key_of(row: Row) -> str:
    """What the idempotency key of a step, or of an item of it, ends with."""
    item = row["item_index"]
    return str(row["step_id"]) if item == -1 else f"{row['step_id']}:{item}"


def check_attempts(
    key: str, lines: list[Effect], made: list[tuple[int, str]], may_overlap: bool
) -> None:
    counted = Counter((line.word, line.attempt) for line in lines)
    assert set(counted.values()) <= {1}, f"an attempt of {key} was made twice: {lines}"
    order = [line.attempt for line in lines]
    in_order = may_overlap or order == sorted(order)
    assert in_order, f"an attempt of {key} outlived its successor: {lines}"
    allowed = {attempt for attempt, how in made if how != "refused"}
    assert set(order) <= allowed, f"{key}: not all of {lines} are recorded: {made}"


def check_last(key: str, status: str, lines: list[Effect], made: list[tuple[int, str]]) -> None:
    """The last attempt is what the step ended with."""
    assert made, f"{key} is {status} but no attempt is recorded"
    last, how = made[-1]
    assert max(line.attempt for line in lines) == last, f"{key}: {lines} but recorded: {made}"
    if status == "succeeded":
        assert [outcome for _, outcome in made].count("ok") == 1
        assert how == "ok"
        assert [line.word for line in lines if line.attempt == last] == ["begin", "end"]
