"""Steps that call workflows: runs of their own, pinned and cancelled with their callers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from swarm.bootstrap.assembly import Swarm
from swarm.store.records import RunChanges, RunFilter, RunRecord, RunState, StepState
from tests.integration.engine.conftest import Register, Start, appears

CALLED = """
inputs: [{name: number, type: integer}]
steps: [{id: inner, agent: actor, inputs: {number: "${inputs.number}"}}]
outputs: {number: "${steps.inner.outputs.number}"}
"""


async def test_a_step_can_call_a_workflow(swarm: Swarm, register: Register, finish: Start) -> None:
    await register("called", CALLED)
    run = await finish(
        """
steps:
  - {id: outer, workflow: called, inputs: {number: 1}}
  - {id: after, agent: actor, inputs: {number: "${steps.outer.outputs.number}"}}
outputs: {number: "${steps.after.outputs.number}"}
"""
    )
    assert run.status is RunState.SUCCEEDED, run.error
    assert run.outputs == {"number": 3}
    (child,) = await swarm.store.list_runs(RunFilter(parent_run_id=run.id))
    assert (child.parent_step_id, child.root_run_id, child.depth) == ("outer", run.id, 1)
    assert child.status is RunState.SUCCEEDED


async def test_workflows_are_called_for_items_and_are_tried_again(
    swarm: Swarm, register: Register, finish: Start, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    await register(
        "flaky",
        """
inputs: [{name: mark, type: string}, {name: number, type: integer}]
steps:
  - {id: try, agent: actor, inputs: {require: "${inputs.mark}"}, on_error: continue}
  - {id: make, agent: actor, inputs: {touch: "${inputs.mark}"}, needs: [try]}
  - {id: check, agent: actor, needs: [make],
     inputs: {fail: "${'' if steps.try.status == 'succeeded' else 'the mark was not there'}"}}
outputs: {number: "${inputs.number}"}
""",
    )
    run = await finish(
        f"""
steps:
  - id: each
    workflow: flaky
    for_each: [1, 2, 3]
    inputs: {{mark: "{marks}/${{item}}", number: "${{item}}"}}
    retry: {{attempts: 2, delay_seconds: 0.01}}
outputs: {{numbers: "${{steps.each.outputs|map(attribute='number')|list}}"}}
"""
    )
    assert run.status is RunState.SUCCEEDED, run.error
    assert run.outputs == {"numbers": [1, 2, 3]}
    children = await swarm.store.list_runs(RunFilter(parent_run_id=run.id))
    assert sorted(str(child.status) for child in children) == ["failed"] * 3 + ["succeeded"] * 3


async def test_a_called_run_fails_its_step_and_says_where(
    register: Register, finish: Start
) -> None:
    await register("broken", "steps: [{id: bad, agent: actor, inputs: {fail: no way}}]")
    run = await finish("steps: [{id: outer, workflow: broken}]")
    assert (run.status, run.error_step, run.error_code) == (RunState.FAILED, "outer", "error")
    assert run.error is not None and "step bad" in run.error and "no way" in run.error


async def test_a_run_is_pinned_with_all_that_it_calls(
    swarm: Swarm, register: Register, start: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    await register("called", CALLED)
    run = await start(
        f"""
steps:
  - {{id: first, agent: actor, inputs: {{wait_for: "{gate}"}}}}
  - {{id: outer, workflow: called, inputs: {{number: 1}}, needs: [first]}}
outputs: {{number: "${{steps.outer.outputs.number}}"}}
"""
    )
    await register("called", CALLED.replace("steps.inner.outputs.number}", "inputs.number}"))
    gate.touch()
    ended = await swarm.runs.wait(run.id)
    assert ended.outputs == {"number": 2}


async def test_calls_end_at_a_depth(register: Register, finish: Start) -> None:
    text = """
inputs: [{name: n, type: integer, default: 0}]
steps:
  - {id: again, workflow: deeper, inputs: {n: "${inputs.n + 1}"}, when: "${inputs.n < 100}"}
"""
    await register("deeper", "steps: [{id: only, agent: actor}]")
    await register("deeper", text)
    run = await finish("steps: [{id: outer, workflow: deeper}]")
    assert run.status is RunState.FAILED
    assert run.error is not None and "8" in run.error and "max_call_depth" in run.error


async def test_cancelling_a_run_cancels_what_it_calls(
    swarm: Swarm, register: Register, start: Start, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    await register(
        "hangs",
        f"""steps: [{{id: inner, agent: actor,
                     inputs: {{touch: "{began}", wait_for: "{tmp_path}/never"}}}}]""",
    )
    run = await start("steps: [{id: outer, workflow: hangs}]")
    await appears(began)
    ended = await swarm.runs.cancel(run.id)
    assert ended.status is RunState.CANCELLED
    (child,) = await swarm.store.list_runs(RunFilter(parent_run_id=run.id))
    assert child.status is RunState.CANCELLED
    assert swarm.runs.driving == frozenset()


async def test_called_runs_that_wait_are_given_up_when_another_step_fails(
    swarm: Swarm, register: Register, start: Start, tmp_path: Path
) -> None:
    await register("asks", "steps: [{id: ask, wait: {approval: {message: Go on?}}}]")
    go = tmp_path / "go"
    run = await start(
        f"""
steps:
  - {{id: each, workflow: asks, for_each: [1, 2, 3], max_parallel: 2}}
  - {{id: alone, workflow: asks}}
  - {{id: bad, agent: actor, inputs: {{wait_for: "{go}", fail: on purpose}}}}
"""
    )
    await _released(swarm, run.id, 3)
    go.touch()
    ended = await swarm.runs.wait(run.id)
    assert (ended.status, ended.error_step) == (RunState.FAILED, "bad")
    given_up = {
        (row.step_id, row.item_index): (row.status, row.error_code)
        for row in await swarm.store.list_steps(run.id)
        if row.step_id != "bad"
    }
    keys = [("alone", -1), ("each", -1), ("each", 0), ("each", 1)]
    assert given_up == dict.fromkeys(keys, (StepState.CANCELLED, "not_reached"))
    children = await swarm.store.list_runs(RunFilter(parent_run_id=run.id))
    assert {child.status for child in children} == {RunState.CANCELLED}


async def test_a_called_run_is_taken_up_whose_host_died_while_its_callers_lives(
    swarm: Swarm, register: Register, start: Start, tmp_path: Path
) -> None:
    """It has waited, and another host took it up then."""
    go = tmp_path / "go"
    await register("called", "steps: [{id: asked, wait: {approval: {message: 'Go on?'}}}]")
    run = await start(
        f"""
steps:
  - {{id: calls, workflow: called}}
  - {{id: acts, agent: actor, inputs: {{wait_for: '{go}'}}}}
"""
    )
    (child,) = await _released(swarm, run.id, 1)
    claimed = await swarm.store.claim_run(child.id, "host_gone", None)
    assert claimed is not None
    goes_on = RunChanges(run={"status": RunState.RUNNING})
    await swarm.store.commit(child.id, claimed.epoch, goes_on)
    assert [one.id for one in await swarm.runs.orphans()] == [child.id]
    assert [one.id for one in await swarm.runs.resume()] == [child.id]
    await swarm.runs.answer(child.id, "asked", approved=True)
    go.touch()
    async with asyncio.timeout(20):
        assert (await swarm.runs.wait(run.id)).status is RunState.SUCCEEDED


async def _released(swarm: Swarm, run_id: str, count: int) -> list[RunRecord]:
    """The runs that a run calls, once so many wait and nobody drives them."""
    async with asyncio.timeout(20):
        while True:
            called = await swarm.store.list_runs(RunFilter(parent_run_id=run_id))
            waiting = [one for one in called if (one.status, one.owner) == (RunState.WAITING, None)]
            if len(waiting) == count:
                return waiting
            await asyncio.sleep(0.01)
