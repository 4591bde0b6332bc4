"""What steps do: order, conditions, retries, failures, expressions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm
from swarm.engine.api import RunRequest
from swarm.kernel.errors import InputError, NotFoundError, RefusedError
from swarm.store.records import RunRecord, RunState, StepRecord, StepState

Start = Callable[..., Awaitable[RunRecord]]
"""Starts a run of a workflow given as text; see the fixtures ``start`` and ``finish``."""


async def states(swarm: Swarm, run_id: str) -> dict[str, str]:
    return {step.step_id: str(step.status) for step in await swarm.store.list_steps(run_id)}


async def test_a_value_goes_down_a_chain_with_its_type(swarm: Swarm, finish: Start) -> None:
    run = await finish(
        """
inputs: [{name: begin, type: integer}]
variables: {twice: "${inputs.begin * 2}"}
steps:
  - {id: a, agent: actor, inputs: {number: "${variables.twice}"}}
  - id: b
    agent: actor@1.0.0
    inputs: {number: "${steps.a.outputs.number}", say: "got ${steps.a.outputs.number}"}
outputs: {number: "${steps.b.outputs.number}", text: "${steps.b.outputs.said}"}
""",
        {"begin": 20},
    )
    assert run.status is RunState.SUCCEEDED, run.error
    assert run.outputs == {"number": 42, "text": "got 41"}
    assert run.step_results["a"]["outputs"]["number"] == 41
    assert run.variables == {"twice": 40}
    invocations = await swarm.store.list_invocations(run.id)
    assert [(one.step_id, one.status, one.isolation) for one in invocations] == [
        ("a", "ok", "none"),
        ("b", "ok", "none"),
    ]


async def test_independent_steps_run_at_the_same_time(finish: Start, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run = await finish(
        f"""
steps:
  - {{id: a, agent: actor, inputs: {{touch: "{one}", wait_for: "{two}"}}}}
  - {{id: b, agent: actor, inputs: {{touch: "{two}", wait_for: "{one}"}}}}
"""
    )
    assert run.status is RunState.SUCCEEDED


async def test_needs_orders_steps_without_a_value(finish: Start, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    await finish(
        f"""
steps:
  - {{id: late, agent: actor, needs: [early], inputs: {{notes: "{notes}"}}}}
  - {{id: early, agent: actor, inputs: {{notes: "{notes}"}}}}
"""
    )
    assert [line.split()[0] for line in notes.read_text().splitlines()] == ["early", "late"]


async def test_a_false_condition_skips_the_step_and_what_needs_it(
    swarm: Swarm, finish: Start
) -> None:
    run = await finish(
        """
inputs: [{name: go, type: boolean}]
steps:
  - {id: a, agent: actor, when: "${inputs.go}"}
  - {id: b, agent: actor, needs: [a]}
  - {id: c, agent: actor, needs: [a], when: "${steps.a.status == 'skipped'}"}
""",
        {"go": False},
    )
    assert run.status is RunState.SUCCEEDED, run.error
    assert await states(swarm, run.id) == {"a": "skipped", "b": "skipped", "c": "succeeded"}


async def test_a_failing_step_is_retried_and_each_attempt_is_recorded(
    swarm: Swarm, finish: Start
) -> None:
    run = await finish(
        """
steps:
  - id: a
    agent: actor
    inputs: {fail_times: 2}
    retry: {attempts: 3, delay_seconds: 0.01}
"""
    )
    assert run.status is RunState.SUCCEEDED, run.error
    (step,) = await swarm.store.list_steps(run.id)
    assert (step.retry_count, step.outputs and step.outputs["attempt"]) == (2, 3)
    invocations = await swarm.store.list_invocations(run.id)
    assert [(one.attempt, one.status) for one in invocations] == [
        (1, "error"),
        (2, "error"),
        (3, "ok"),
    ]


async def test_retry_only_the_codes_that_are_named(swarm: Swarm, finish: Start) -> None:
    run = await finish(
        """
steps:
  - id: a
    agent: actor
    inputs: {fail: no}
    retry: {attempts: 5, delay_seconds: 0, on: [timeout]}
"""
    )
    assert run.status is RunState.FAILED
    assert len(await swarm.store.list_invocations(run.id)) == 1


async def test_a_timeout_ends_the_attempt_with_its_code(swarm: Swarm, finish: Start) -> None:
    run = await finish(
        """
steps:
  - {id: a, agent: actor, timeout_seconds: 0.1, inputs: {wait_for: /nowhere}}
"""
    )
    assert (run.status, run.error_code, run.error_step) == (RunState.FAILED, "timeout", "a")


async def test_a_failure_ends_the_run_and_says_which_step_and_why(
    swarm: Swarm, finish: Start
) -> None:
    run = await finish(
        """
steps:
  - {id: a, agent: actor, inputs: {fail: the reason}}
  - {id: b, agent: actor, needs: [a]}
on_error:
  - notify: {type: log, level: warning, message: "it failed in ${error.step}: ${error.message}"}
on_success:
  - notify: {type: log, message: never}
"""
    )
    assert (run.status, run.error_step) == (RunState.FAILED, "a")
    assert "the reason" in (run.error or "")
    assert await states(swarm, run.id) == {"a": "failed", "b": "skipped"}
    notes = [entry for entry in await swarm.runs.logs(run.id) if entry["stream"] == "notify"]
    (note,) = notes
    assert note["level"] == "warning"
    assert note["message"].startswith("it failed in a: ")
    assert "the reason" in note["message"]


async def test_on_error_continue_leaves_the_error_to_later_steps(
    swarm: Swarm, finish: Start
) -> None:
    run = await finish(
        """
steps:
  - {id: a, agent: actor, on_error: continue, inputs: {fail: broken}}
  - {id: b, agent: actor, needs: [a], inputs: {say: "${steps.a.error.message}"}}
outputs: {why: "${steps.b.outputs.said}"}
on_success:
  - notify: {type: log, message: "done: ${steps.b.outputs.said}"}
"""
    )
    assert run.status is RunState.SUCCEEDED, run.error
    assert "broken" in (run.outputs or {})["why"]
    assert any("done: " in entry["message"] for entry in await swarm.runs.logs(run.id))


async def test_an_expression_that_fails_at_run_time_fails_its_step(finish: Start) -> None:
    run = await finish(
        """
steps:
  - {id: a, agent: actor}
  - {id: b, agent: actor, inputs: {number: "${1 // steps.a.outputs.number - 1 // 0}"}}
"""
    )
    assert (run.status, run.error_step) == (RunState.FAILED, "b")


async def test_inputs_of_the_wrong_type_are_refused_before_anything_is_recorded(
    swarm: Swarm, finish: Start
) -> None:
    text = "inputs: [{name: n, type: integer}]\nsteps: [{id: a, agent: actor}]\n"
    with pytest.raises(InputError, match="`n`"):
        await finish(text, {"n": "five"})
    assert await swarm.store.unfinished_runs() == []


async def test_a_disabled_workflow_is_refused(swarm: Swarm, finish: Start) -> None:
    await finish("steps: [{id: a, agent: actor}]\n")
    await swarm.workflows.set_enabled("flow", False)
    with pytest.raises(RefusedError, match="disabled"):
        await swarm.runs.create(RunRequest("flow"))


async def test_an_unknown_workflow_offers_the_nearest(swarm: Swarm, finish: Start) -> None:
    await finish("steps: [{id: a, agent: actor}]\n")
    with pytest.raises(NotFoundError, match="flow"):
        await swarm.runs.create(RunRequest("flwo"))


async def test_a_secret_reaches_the_agent_and_nothing_that_is_kept(
    swarm: Swarm, finish: Start, monkeypatch: pytest.MonkeyPatch, settings: object
) -> None:
    monkeypatch.setenv("SWARM_SECRET_TOKEN", "very-secret-value")
    run = await finish(
        """
steps:
  - {id: a, agent: actor, inputs: {secret: "${secrets.TOKEN}", say: "it is "}}
  - {id: b, agent: actor, inputs: {secret: "Bearer ${secrets.TOKEN}.", say: "it is "}}
outputs: {said: ["${steps.a.outputs.said}", "${steps.b.outputs.said}"]}
"""
    )
    assert run.outputs == {"said": ["it is ********", "it is Bearer ********."]}, run.error
    steps = {step.step_id: step.inputs or {} for step in await swarm.store.list_steps(run.id)}
    assert steps["a"]["secret"] == {"$secret": "TOKEN"}
    assert steps["b"]["secret"] == {"$secret": "Bearer ${secrets.TOKEN}."}
    await swarm.store.close()
    kept = [path for path in swarm.home.root.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"very-secret-value" in path.read_bytes()]


async def test_followers_hear_of_every_step_and_the_end(swarm: Swarm, start: Start) -> None:
    run = await start(
        """
steps:
  - {id: a, agent: actor}
  - {id: b, agent: actor, needs: [a]}
"""
    )
    events = [event async for event in swarm.runs.follow(run.id)]
    assert [event.step_id for event in events if event.kind == "step.finished"] == ["a", "b"]
    assert events[-1].kind == "run.finished"
    assert events[-1].data["status"] == "succeeded"
    late = [event async for event in swarm.runs.follow(run.id)]
    assert [event.step_id for event in late if event.kind == "step.finished"] == ["a", "b"]
    assert late[-1].data["status"] == "succeeded"


async def test_who_follows_from_before_the_start_hears_of_each_step_once(
    swarm: Swarm, finish: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of the run happens between the follower's ear and its look at the journal."""
    gate = tmp_path / "gate"
    step = f"{{id: a, agent: actor, inputs: {{wait_for: {gate}}}}}"
    gate.touch()
    ended = await finish(f"steps: [{step}]")
    gate.unlink()
    run = await swarm.runs.retry(ended.id)
    look = swarm.store.list_steps

    async def look_late(run_id: str) -> list[StepRecord]:
        monkeypatch.undo()
        await swarm.runs.start(run_id)
        while (found := await look(run_id))[0].status is not StepState.RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return found

    monkeypatch.setattr(swarm.store, "list_steps", look_late)
    heard = []
    async for event in swarm.runs.follow(run.id):
        heard.append(event.kind)
        if event.kind == "step.started":
            gate.touch()
    states = [kind for kind in heard if kind.startswith(("run.", "step."))]
    assert states == ["run.started", "step.started", "step.finished", "run.finished"]


async def test_every_end_state_of_a_step_is_final() -> None:
    assert {state for state in StepState if not state.is_final} == {
        StepState.PENDING,
        StepState.RUNNING,
        StepState.WAITING,
    }
