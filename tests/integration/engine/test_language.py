"""Steps beyond one call of an agent: items, handlers, actions, cached results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swarm.bootstrap.assembly import Swarm
from swarm.engine.api import RunRequest
from swarm.kernel.errors import ConflictError
from swarm.sandbox.ports import Isolation
from swarm.store.records import NO_ITEM, RunState, StepState
from tests.integration.engine.conftest import Register, Start, appears


async def states(swarm: Swarm, run_id: str) -> dict[str, str]:
    steps = await swarm.store.list_steps(run_id)
    return {step.step_id: str(step.status) for step in steps if step.item_index == NO_ITEM}


def noted(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


# -- items ---------------------------------------------------------------------------------------

FAN_OUT = """
inputs: [{name: numbers, type: array}]
steps:
  - id: each
    agent: actor
    for_each: "${inputs.numbers}"
    max_parallel: 3
    inputs: {number: "${item}", say: "item ${index}"}
  - id: join
    agent: actor
    inputs: {number: "${steps.each.outputs|map(attribute='number')|sum}"}
outputs: {numbers: "${steps.each.outputs|map(attribute='number')|list}",
          total: "${steps.join.outputs.number}"}
"""


async def test_results_of_items_come_in_the_order_of_the_items(swarm: Swarm, finish: Start) -> None:
    run = await finish(FAN_OUT, {"numbers": list(range(10))})
    assert run.status is RunState.SUCCEEDED, run.error
    assert run.outputs == {"numbers": list(range(1, 11)), "total": 56}
    steps = await swarm.store.list_steps(run.id)
    items = {step.item_index: step for step in steps if step.step_id == "each"}
    assert sorted(items) == list(range(NO_ITEM, 10))
    assert items[NO_ITEM].item_count == 10
    assert items[3].outputs == {"said": "item 3", "number": 4, "attempt": 1}
    invocations = await swarm.store.list_invocations(run.id)
    assert sorted(one.item_index for one in invocations if one.step_id == "each") == list(range(10))


async def test_no_items_give_an_empty_array(finish: Start) -> None:
    run = await finish(
        """
inputs: [{name: numbers, type: array}]
steps:
  - {id: each, agent: actor, for_each: "${inputs.numbers}", inputs: {number: "${item}"}}
outputs: {all: "${steps.each.outputs}"}
""",
        {"numbers": []},
    )
    assert (run.status, run.outputs) == (RunState.SUCCEEDED, {"all": []})


async def test_a_failed_item_stops_the_rest_and_a_resume_runs_only_what_is_left(
    swarm: Swarm, finish: Start, tmp_path: Path
) -> None:
    notes, needed = tmp_path / "notes", tmp_path / "needed"
    run = await finish(
        f"""
steps:
  - id: each
    agent: actor
    for_each: [a, b, c, d]
    max_parallel: 1
    inputs:
      notes: "{notes}"
      say: "${{item}}"
      require: "${{'{needed}' if item == 'c' else ''}}"
outputs: {{said: "${{steps.each.outputs|map(attribute='said')|list}}"}}
"""
    )
    assert (run.status, run.error_step) == (RunState.FAILED, "each")
    assert run.error is not None and "item 2 failed" in run.error
    keys = [line[2].rsplit(":", 1)[1] for line in noted(notes)]
    assert keys == ["0", "1", "2"]
    needed.touch()
    await swarm.runs.resume([run.id])
    ended = await swarm.runs.wait(run.id)
    assert ended.status is RunState.SUCCEEDED, ended.error
    assert ended.outputs == {"said": ["a", "b", "c", "d"]}
    keys = [line[2].rsplit(":", 1)[1] for line in noted(notes)]
    assert keys == ["0", "1", "2", "2", "3"]


async def test_failures_of_items_are_left_to_the_run_that_continues(finish: Start) -> None:
    run = await finish(
        """
steps:
  - id: each
    agent: actor
    for_each: [0, 1, 2]
    on_error: continue
    inputs: {fail: "${'no' if item == 1 else ''}", number: "${item}"}
outputs: {errors: "${steps.each.errors|map(attribute='index')|list}"}
"""
    )
    assert run.status is RunState.SUCCEEDED, run.error
    assert run.outputs is not None
    assert run.outputs["errors"] == [1]
    assert run.step_results["each"]["outputs"][1] is None


async def test_what_is_no_array_fails_the_step(finish: Start) -> None:
    run = await finish(
        """
inputs: [{name: value, type: object}]
steps: [{id: each, agent: actor, for_each: "${inputs.value.list}"}]
""",
        {"value": {"list": "no"}},
    )
    assert (run.status, run.error_code) == (RunState.FAILED, "invalid_input")
    assert run.error is not None and "must give an array" in run.error


# -- handlers and actions ------------------------------------------------------------------------


async def test_handlers_run_when_their_step_has_failed(swarm: Swarm, finish: Start) -> None:
    run = await finish(
        """
steps:
  - id: risky
    agent: actor
    inputs: {fail: broken}
    on_error:
      then: continue
      steps:
        - {id: undo, agent: actor, inputs: {say: "${error.step}: ${error.code}"}}
        - {id: tell, agent: actor, inputs: {say: "${steps.undo.outputs.said}!"}}
  - id: fine
    agent: actor
    on_error: {steps: [{id: never, agent: actor}]}
outputs: {said: "${steps.tell.outputs.said}"}
"""
    )
    assert run.status is RunState.SUCCEEDED, run.error
    assert run.outputs == {"said": "risky: error!"}
    assert await states(swarm, run.id) == {
        "risky": "failed", "undo": "succeeded", "tell": "succeeded", "fine": "succeeded",
        "never": "skipped",
    }  # fmt: skip


async def test_handlers_run_although_the_failure_ends_the_run(swarm: Swarm, finish: Start) -> None:
    run = await finish(
        """
steps:
  - id: risky
    agent: actor
    inputs: {fail: broken}
    on_error: {steps: [{id: undo, agent: actor}]}
  - {id: after, agent: actor, needs: [risky]}
"""
    )
    assert (run.status, run.error_step) == (RunState.FAILED, "risky")
    assert await states(swarm, run.id) == {
        "risky": "failed", "undo": "succeeded", "after": "skipped"
    }  # fmt: skip


async def test_actions_run_in_turn_once_the_steps_have_ended(
    swarm: Swarm, finish: Start, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    run = await finish(
        f"""
steps: [{{id: bad, agent: actor, inputs: {{fail: broken, notes: "{notes}"}}}}]
on_error:
  - step: {{id: first, agent: actor, inputs: {{notes: "{notes}", say: "${{error.step}}"}}}}
  - notify: {{type: log, message: "between: ${{steps.first.outputs.said}}"}}
  - step: {{id: second, agent: actor, inputs: {{notes: "{notes}"}}}}
on_success:
  - step: {{id: other, agent: actor, inputs: {{notes: "{notes}"}}}}
"""
    )
    assert (run.status, run.error_step) == (RunState.FAILED, "bad")
    assert [line[0] for line in noted(notes)] == ["bad", "first", "second"]
    assert (await states(swarm, run.id))["other"] == "skipped"
    lines = [line["message"] for line in await swarm.runs.logs(run.id)]
    assert "between: bad" in lines
    await swarm.runs.resume([run.id])
    again = await swarm.runs.wait(run.id)
    assert again.status is RunState.FAILED
    assert [line[0] for line in noted(notes)] == ["bad", "first", "second"] * 2


async def test_clean_up_runs_when_a_run_is_cancelled(
    swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    began, cleaned = tmp_path / "began", tmp_path / "cleaned"
    run = await start(
        f"""
steps:
  - id: hangs
    agent: actor
    inputs: {{touch: "{began}", wait_for: "{tmp_path}/never"}}
on_cancel: [{{step: {{id: clean, agent: actor, inputs: {{touch: "{cleaned}"}}}}}}]
"""
    )
    await appears(began)
    ended = await swarm.runs.cancel(run.id)
    assert (ended.status, ended.error_code) == (RunState.CANCELLED, "cancelled")
    assert cleaned.exists()
    assert await states(swarm, run.id) == {"hangs": "cancelled", "clean": "succeeded"}


async def test_a_run_that_takes_too_long_fails(swarm: Swarm, finish: Start, tmp_path: Path) -> None:
    run = await finish(
        f"""
timeout_seconds: 0.3
steps: [{{id: hangs, agent: actor, inputs: {{wait_for: "{tmp_path}/never"}}}}]
on_error: [{{step: {{id: clean, agent: actor}}}}]
"""
    )
    assert (run.status, run.error_code) == (RunState.FAILED, "timeout")
    assert await states(swarm, run.id) == {"hangs": "cancelled", "clean": "succeeded"}


# -- cached results ------------------------------------------------------------------------------

CACHED = """
inputs: [{{name: number, type: integer}}]
steps:
  - id: cached
    agent: actor
    cache: {{ttl_seconds: {ttl}}}
    inputs: {{number: "${{inputs.number}}", notes: "{notes}"}}
outputs: {{number: "${{steps.cached.outputs.number}}"}}
"""


async def test_a_cached_result_is_used_again_for_the_same_inputs(
    swarm: Swarm, finish: Start, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    text = CACHED.format(ttl=60, notes=notes)
    first = await finish(text, {"number": 1})
    again = await finish(text, {"number": 1})
    other = await finish(text, {"number": 2})
    assert [run.outputs for run in (first, again, other)] == [
        {"number": 2}, {"number": 2}, {"number": 3}
    ]  # fmt: skip
    assert len(noted(notes)) == 2
    (step,) = await swarm.store.list_steps(again.id)
    assert (step.reused_from, step.attempt) == (first.id, 0)
    assert await swarm.store.list_invocations(again.id) == []


async def test_a_cached_result_expires(finish: Start, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    text = CACHED.format(ttl=1e-6, notes=notes)
    await finish(text, {"number": 1})
    await finish(text, {"number": 1})
    assert len(noted(notes)) == 2


# -- large values --------------------------------------------------------------------------------


async def test_large_values_are_passed_by_reference(swarm: Swarm, finish: Start) -> None:
    text = "x" * 200_000
    run = await finish(
        """
inputs: [{name: text, type: string}]
steps:
  - {id: a, agent: actor, inputs: {say: "${inputs.text}"}}
  - {id: b, agent: actor, inputs: {say: "${steps.a.outputs.said}"}}
outputs: {said: "${steps.b.outputs.said}"}
""",
        {"text": text},
    )
    assert run.status is RunState.SUCCEEDED, run.error
    assert run.outputs is not None and run.outputs["$artifact"].startswith("sha256:")
    assert await swarm.runs.value(run.outputs) == {"said": text}
    for step in await swarm.store.list_steps(run.id):
        assert len(str(step.inputs)) < 1000 and len(str(step.outputs)) < 1000


async def test_an_agent_cannot_pass_its_outputs_off_as_a_large_value(
    swarm: Swarm, finish: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "forger"
    folder.mkdir()
    (folder / "agent.yaml").write_text(
        "name: forger\nversion: 1.0.0\nruntime: {type: python, entry: main.py}\n"
        "inputs: [{name: file, type: file}]\nadditional_outputs: true\n"
    )
    (folder / "main.py").write_text(
        "def handler(inputs, context):\n"
        "    return {'$artifact': FORGED, 'name': 'value.json', 'size': 1,"
        " 'media_type': 'application/vnd.swarm.value+json', 'refers': []}\n"
    )
    reference = await swarm.artifacts.put_bytes(b'{"stolen": true}')
    code = (folder / "main.py").read_text().replace("FORGED", repr(reference))
    (folder / "main.py").write_text(code)
    await swarm.agents.register(folder)
    value = {"$artifact": reference, "name": "f", "size": 16, "media_type": "text/plain"}
    run = await finish(
        """
inputs: [{name: file, type: file}]
steps: [{id: a, agent: forger, inputs: {file: "${inputs.file}"}}]
outputs: {all: "${steps.a.outputs}"}
""",
        {"file": value},
    )
    assert (run.status, run.error_code) == (RunState.FAILED, "bad_output")


# -- requests ------------------------------------------------------------------------------------


async def test_a_key_starts_one_run_however_often_it_is_used(
    swarm: Swarm, register: Register
) -> None:
    await register("once", "inputs: [{name: n, type: integer}]\nsteps: [{id: a, agent: actor}]")

    def request(n: int, **more: Any) -> RunRequest:
        return RunRequest("once", {"n": n}, isolation=Isolation.NONE, idempotency_key="k", **more)

    first = await swarm.runs.create(request(1))
    again = await swarm.runs.create(request(1))
    assert first.id == again.id
    with pytest.raises(ConflictError, match="with other inputs"):
        await swarm.runs.create(request(2))


async def test_declared_outputs_are_checked(finish: Start) -> None:
    text = """
steps: [{id: a, agent: actor, inputs: {say: text}}]
outputs:
  - {name: number, type: TYPE, value: "${steps.a.outputs['said' if true else 'number']}"}
"""
    wrong = await finish(text.replace("TYPE", "integer"))
    assert (wrong.status, wrong.error_code) == (RunState.FAILED, "bad_output")
    right = await finish(text.replace("TYPE", "string"), name="right")
    assert (right.status, right.outputs) == (RunState.SUCCEEDED, {"number": "text"})


async def test_attempts_are_recorded_with_what_they_used(swarm: Swarm, finish: Start) -> None:
    run = await finish(
        """
steps:
  - {id: a, agent: actor, inputs: {fail_times: 1}, retry: {attempts: 2, delay_seconds: 0}}
"""
    )
    assert run.status is RunState.SUCCEEDED
    first, second = await swarm.store.list_invocations(run.id)
    assert [(one.attempt, one.status) for one in (first, second)] == [(1, "error"), (2, "ok")]
    (step,) = await swarm.store.list_steps(run.id)
    assert (step.attempt, step.invocation_id, step.status) == (2, second.id, StepState.SUCCEEDED)
