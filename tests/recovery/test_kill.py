"""Processes are killed with ``kill -9`` at random moments, and every run must end as if none was.

Several commands of one home run at once: ``swarm run``, ``--detach``, ``runs resume``, workers and
the background workers that they start. Commands, workers, zygotes and sandboxes are killed. The
judge is a model that computes what each run must give, and a ledger outside of what was executed.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SCALE, Scale
from tests.recovery.kills.agents import write_agents
from tests.recovery.kills.chaos import Chaos
from tests.recovery.kills.expected import expect
from tests.recovery.kills.home import Effect, Home
from tests.recovery.kills.workflows import Flow, draw_flow

SESSIONS = 5 if SCALE == "full" else 1
"""Homes for each isolation level; 10 homes of 105 kills are 1,050."""
FLOWS = 8


@pytest.fixture
def flows(rng: random.Random) -> list[Flow]:
    return [draw_flow(f"flow-{number}", rng) for number in range(FLOWS)]


@pytest.mark.parametrize("session", range(SESSIONS))
@pytest.mark.parametrize("isolation", ["sandbox", "none"])
def test_whatever_is_killed_every_accepted_run_ends_as_if_nothing_was(
    tmp_path: Path,
    flows: list[Flow],
    rng: random.Random,
    scale: Scale,
    isolation: str,
    session: int,
    record_property: Callable[[str, object], None],
) -> None:
    wanted = scale(small=15, full=105)
    with Home(tmp_path, SWARM_IDLE_SECONDS="0.5") as home:
        register(home, flows, tmp_path)
        chaos = Chaos(home, flows, isolation, rng)
        chaos.kill(wanted)
        chaos.settle()
        check(home, {flow.name: flow for flow in flows})
        runs = len(home.query("SELECT id FROM workflow_runs"))
        record_property("measured", f"{runs} runs, kills: {dict(chaos.kills.most_common())}")


def register(home: Home, flows: list[Flow], folder: Path) -> None:
    for package in write_agents(folder / "agents"):
        home.run("agent", "register", str(package))
    for flow in flows:
        file = folder / f"{flow.name}.yaml"
        file.write_text(flow.text())
        home.run("workflow", "register", str(file))


def check(home: Home, flows: dict[str, Flow]) -> None:
    """Every accepted run has ended as the model says, and each effect is where it belongs."""
    runs = {run["id"]: run for run in home.query("SELECT * FROM workflow_runs")}
    assert home.accepted() <= runs.keys()
    assert runs
    effects = home.effects()
    assert effects.keys() <= runs.keys()
    for run_id, run in runs.items():
        flow = flows[run["workflow_name"]]
        number = json.loads(run["inputs"])["number"]
        try:
            check_run(home, run_id, flow, number)
            check_effects(home, run_id, effects.get(run_id, []))
        except AssertionError as error:
            raise AssertionError(f"{run_id} of {flow}, number {number}: {error}") from None


def check_run(home: Home, run_id: str, flow: Flow, number: int) -> None:
    expected = expect(flow, number)
    (run,) = home.query("SELECT * FROM workflow_runs WHERE id = ?", run_id)
    assert run["status"] == expected.status, (run["error_step"], run["error"])
    steps = {
        row["step_id"]: row
        for row in home.query("SELECT * FROM step_executions WHERE run_id = ?", run_id)
    }
    assert list(steps) == [step.id for step in flow.steps]
    for step_id, row in steps.items():
        state = expected.states[step_id]
        if row["error_code"] == "not_reached":
            assert row["status"] == "skipped"
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


def check_effects(home: Home, run_id: str, effects: list[Effect]) -> None:
    """Each attempt was made once, in order, and none after the one that the journal tells of."""
    steps = home.query("SELECT * FROM step_executions WHERE run_id = ?", run_id)
    attempts: dict[str, list[tuple[int, str]]] = {}
    for row in home.query("SELECT * FROM invocations WHERE run_id = ?", run_id):
        assert row["status"] != "running", f"attempt {row['attempt']} of {row['step_id']}"
        attempts.setdefault(row["step_id"], []).append((row["attempt"], row["status"]))
    told: dict[str, list[Effect]] = {}
    for effect in effects:
        told.setdefault(effect.key.partition(":")[2], []).append(effect)
    assert told.keys() <= {step["step_id"] for step in steps}, "a key that belongs to no step"
    for step in steps:
        lines = told.get(step["step_id"], [])
        if step["error_code"] == "not_reached":
            continue  # it may have been running when another step's failure ended the run
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
