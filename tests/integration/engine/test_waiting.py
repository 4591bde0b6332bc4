"""Steps that wait: for a time, for a person, for an event; and runs that wait for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.engine.api import RunRequest
from swarm.kernel.clock import now_text
from swarm.kernel.errors import ConflictError, InputError, NotFoundError
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunFilter, RunRecord, RunState, StepState
from tests.integration.engine.conftest import appears

Start = Callable[..., Awaitable[RunRecord]]

APPROVAL = """
steps:
  - id: ask
    wait:
      approval:
        message: "Deploy ${run.workflow}?"
        form: [{name: where, type: string, enum: [test, live]},
               {name: count, type: integer, default: 1}]
  - {id: act, agent: actor, inputs: {say: "to ${steps.ask.outputs.values.where}"}}
outputs: {said: "${steps.act.outputs.said}", by: "${steps.ask.outputs.by}"}
"""


async def becomes(swarm: Swarm, run_id: str, state: RunState) -> RunRecord:
    """The run once it is in this state (and, if that is waiting, once nobody drives it)."""
    while True:
        run = await swarm.runs.get(run_id)
        if run.status is state and (state is not RunState.WAITING or run.owner is None):
            return run
        await asyncio.sleep(0.005)


async def test_a_short_wait_ends_by_itself(swarm: Swarm, finish: Start) -> None:
    run = await finish(
        """
steps:
  - {id: pause, wait: {duration: 0.05}}
  - {id: after, agent: actor, needs: [pause]}
outputs: {woken: "${steps.pause.outputs.woken_at}"}
"""
    )
    assert run.status is RunState.SUCCEEDED, run.error
    assert run.outputs is not None
    (pause, after) = await swarm.store.list_steps(run.id)
    assert pause.started_at is not None and after.started_at is not None
    assert pause.started_at < run.outputs["woken"] <= after.started_at


async def test_a_date_that_has_passed_is_no_wait(finish: Start) -> None:
    run = await finish('steps: [{id: pause, wait: {until: "2020-01-01T00:00:00+01:00"}}]')
    assert run.status is RunState.SUCCEEDED, run.error


async def test_a_long_wait_gives_the_run_up_and_survives_the_process(
    swarm: Swarm, start: Start, settings: Settings
) -> None:
    run = await start(
        """
steps:
  - {id: before, agent: actor}
  - {id: pause, wait: {duration: 3s}, needs: [before]}
  - {id: after, agent: actor, needs: [pause]}
"""
    )
    waiting = await becomes(swarm, run.id, RunState.WAITING)
    assert waiting.owner is None and waiting.wake_at is not None
    await swarm.runs.idle()
    ended = await swarm.runs.wait(run.id)
    assert ended.status is RunState.SUCCEEDED
    steps = {step.step_id: step for step in await swarm.store.list_steps(run.id)}
    assert (steps["after"].started_at or "") >= waiting.wake_at
    assert len(await swarm.store.list_invocations(run.id)) == 2


async def test_a_person_answers_with_a_form(swarm: Swarm, start: Start) -> None:
    run = await start(APPROVAL)
    await becomes(swarm, run.id, RunState.WAITING)
    (step,) = await swarm.store.waiting_steps("approval")
    assert step.wait_details is not None
    assert step.wait_details["message"] == "Deploy flow?"
    with pytest.raises(InputError, match="must be one of"):
        await swarm.runs.answer(run.id, None, approved=True, values={"where": "moon"})
    await swarm.runs.answer(run.id, "ask", approved=True, values={"where": "live"}, by="ann")
    ended = await swarm.runs.wait(run.id)
    assert (ended.status, ended.outputs) == (
        RunState.SUCCEEDED, {"said": "to live", "by": "ann"}
    )  # fmt: skip
    with pytest.raises(NotFoundError):
        await swarm.runs.answer(run.id, "ask", approved=True)


async def test_an_answer_in_the_moment_in_which_the_run_is_given_up_is_heard(
    swarm: Swarm, start: Start
) -> None:
    for name in ("one", "two", "three", "four"):
        run = await start(APPROVAL, name=name)
        while True:  # the step waits before the run does
            step = next(iter(await swarm.store.waiting_steps("approval")), None)
            if step is not None and step.run_id == run.id:
                break
            await asyncio.sleep(0)
        await swarm.runs.answer(run.id, None, approved=True, values={"where": "test"})
        assert (await swarm.runs.wait(run.id)).status is RunState.SUCCEEDED


async def test_of_two_answers_the_first_stands(swarm: Swarm, start: Start) -> None:
    run = await start(APPROVAL)
    await becomes(swarm, run.id, RunState.WAITING)
    answers = await asyncio.gather(
        *(
            swarm.runs.answer(run.id, "ask", approved=True, values={"where": where}, by=where)
            for where in ("test", "live")
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(each, (ConflictError, NotFoundError)) for each in answers) == 1
    ended = await swarm.runs.wait(run.id)
    assert ended.outputs is not None
    assert ended.outputs["said"] == f"to {ended.outputs['by']}"


async def test_a_rejection_fails_the_step(swarm: Swarm, start: Start) -> None:
    run = await start(APPROVAL)
    await becomes(swarm, run.id, RunState.WAITING)
    await swarm.runs.answer(run.id, "ask", approved=False, comment="not today")
    ended = await swarm.runs.wait(run.id)
    assert (ended.status, ended.error_code, ended.error_step) == (
        RunState.FAILED, "rejected", "ask"
    )  # fmt: skip
    assert ended.error is not None and "not today" in ended.error
    # Taken up again, it asks again.
    await swarm.runs.resume([run.id])
    await becomes(swarm, run.id, RunState.WAITING)
    await swarm.runs.answer(run.id, "ask", approved=True, values={"where": "test"})
    assert (await swarm.runs.wait(run.id)).status is RunState.SUCCEEDED


async def test_an_answer_that_comes_too_late(swarm: Swarm, finish: Start) -> None:
    run = await finish("steps: [{id: ask, wait: {approval: {message: Now?, deadline: 0.05}}}]")
    assert (run.status, run.error_code) == (RunState.FAILED, "deadline")


async def test_an_answer_while_no_process_runs_is_found(
    swarm: Swarm, start: Start, settings: Settings
) -> None:
    run = await start(APPROVAL)
    await becomes(swarm, run.id, RunState.WAITING)
    # As if the process had been killed between recording the answer and telling anybody.
    step = await swarm.runs._inbox.waiting_step(run, None)
    await swarm.runs._inbox.answer(step, True, {"where": "test"}, "ann", "")
    async with open_swarm(settings, role="worker") as other:
        taken = await other.runs.resume()
        # Where there is a queue, what a worker sees to when it joins may have been faster.
        assert [one.id for one in taken] == [run.id] or swarm.peers.spreads
        assert (await other.runs.wait(run.id)).status is RunState.SUCCEEDED


EVENT = """
inputs: [{name: order, type: integer}]
steps:
  - id: paid
    wait: {event: {name: order.paid, key: "${inputs.order}"}}
  - id: shipped
    wait: {event: {name: order.paid, key: "${inputs.order}"}}
    needs: [paid]
outputs: {paid: "${steps.paid.outputs.payload}", shipped: "${steps.shipped.outputs.payload}"}
"""


async def test_events_reach_the_runs_that_wait_for_them(swarm: Swarm, start: Start) -> None:
    one = await start(EVENT, {"order": 1})
    two = await start(EVENT, {"order": 2})
    for run in (one, two):
        await becomes(swarm, run.id, RunState.WAITING)
    _, waiting = await swarm.runs.send_event("order.paid", "1", {"amount": 5})
    assert waiting == [one.id]
    await becomes(swarm, one.id, RunState.WAITING)
    await swarm.runs.send_event("order.paid", "1", {"amount": 6})
    ended = await swarm.runs.wait(one.id)
    assert ended.outputs == {"paid": {"amount": 5}, "shipped": {"amount": 6}}
    assert (await swarm.runs.get(two.id)).status is RunState.WAITING


async def test_an_event_that_came_before_the_wait_counts(
    swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    run = await start(
        f"""
steps:
  - {{id: first, agent: actor, inputs: {{wait_for: "{gate}"}}}}
  - {{id: wait, wait: {{event: {{name: go}}}}, needs: [first]}}
"""
    )
    await swarm.runs.send_event("go", None, 1, event_id="one")
    await swarm.runs.send_event("go", None, 1, event_id="one")
    gate.touch()
    assert (await swarm.runs.wait(run.id)).status is RunState.SUCCEEDED
    late = await start("steps: [{id: wait, wait: {event: {name: go, deadline: 0.1}}}]", name="b")
    ended = await swarm.runs.wait(late.id)
    assert ended.error_code == "deadline"  # what came before the run is not for it


async def test_a_waiting_run_can_be_cancelled(swarm: Swarm, start: Start, tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"
    run = await start(
        APPROVAL
        + f"on_cancel: [{{step: {{id: clean, agent: actor, inputs: {{touch: '{cleaned}'}}}}}}]"
    )
    await becomes(swarm, run.id, RunState.WAITING)
    ended = await swarm.runs.cancel(run.id)
    assert ended.status is RunState.CANCELLED
    assert cleaned.exists()


async def test_a_caller_waits_with_what_it_calls(
    swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "called.yaml"
    file.write_text(f"name: called\nversion: 1.0.0\n{APPROVAL}")
    await swarm.workflows.register(file)
    run = await start(
        """
steps: [{id: outer, workflow: called}]
outputs: {said: "${steps.outer.outputs.said}"}
"""
    )
    await becomes(swarm, run.id, RunState.WAITING)
    (child,) = await swarm.store.list_runs(RunFilter(parent_run_id=run.id))
    assert child.status is RunState.WAITING
    await swarm.runs.answer(child.id, None, approved=True, values={"where": "test"})
    ended = await swarm.runs.wait(run.id)
    assert (ended.status, ended.outputs) == (RunState.SUCCEEDED, {"said": "to test"})


async def test_a_run_that_waits_keeps_to_its_time_limit(swarm: Swarm, start: Start) -> None:
    run = await start("timeout_seconds: 2.5\n" + APPROVAL.lstrip())
    await becomes(swarm, run.id, RunState.WAITING)
    ended = await swarm.runs.wait(run.id)
    assert (ended.status, ended.error_code) == (RunState.FAILED, "timeout")


# -- turns ---------------------------------------------------------------------------------------

KEYED = """
inputs: [{{name: customer, type: string}}, {{name: name, type: string}}]
concurrency: {{key: "${{inputs.customer}}", limit: 1}}
steps: [{{id: only, agent: actor,
          inputs: {{say: "${{inputs.name}}", notes: "{folder}/notes",
                    touch: "{folder}/began-${{inputs.name}}",
                    wait_for: "{folder}/go-${{inputs.name}}"}}}}]
"""


async def test_runs_with_one_key_take_turns_by_priority(swarm: Swarm, tmp_path: Path) -> None:
    file = tmp_path / "keyed.yaml"
    file.write_text("name: keyed\nversion: 1.0.0\n" + KEYED.format(folder=tmp_path))
    await swarm.workflows.register(file)

    async def begin(customer: str, name: str, priority: int = 0) -> RunRecord:
        request = RunRequest(
            "keyed", {"customer": customer, "name": name}, isolation=Isolation.NONE,
            priority=priority,
        )  # fmt: skip
        run = await swarm.runs.create(request)
        assert await swarm.runs.start(run.id)
        return run

    first = await begin("ann", "first")
    await appears(tmp_path / "began-first")
    later = await begin("ann", "later")
    urgent = await begin("ann", "urgent", priority=5)
    other = await begin("bob", "other")
    (tmp_path / "go-other").touch()
    assert (await swarm.runs.wait(other.id)).status is RunState.SUCCEEDED
    for run in (later, urgent):
        assert (await swarm.runs.get(run.id)).status is RunState.PENDING
    for name in ("later", "urgent", "first"):
        (tmp_path / f"go-{name}").touch()
    ended = [await swarm.runs.wait(run.id) for run in (first, later, urgent)]
    assert all(run.status is RunState.SUCCEEDED for run in ended)
    begun = sorted(ended, key=lambda run: run.started_at or "")
    assert [run.inputs["name"] for run in begun] == ["first", "urgent", "later"]
    times = [(run.started_at or "", run.completed_at or "") for run in begun]
    assert all(end <= start for (_, end), (start, _) in pairwise(times))


async def test_a_queued_run_can_be_cancelled(swarm: Swarm, tmp_path: Path) -> None:
    file = tmp_path / "keyed.yaml"
    file.write_text("name: keyed\nversion: 1.0.0\n" + KEYED.format(folder=tmp_path))
    await swarm.workflows.register(file)
    runs = []
    for name in ("one", "two"):
        request = RunRequest("keyed", {"customer": "c", "name": name}, isolation=Isolation.NONE)
        runs.append(await swarm.runs.create(request))
        await swarm.runs.start(runs[-1].id)
    ended = await swarm.runs.cancel(runs[1].id)
    assert ended.status is RunState.CANCELLED
    (tmp_path / "go-one").touch()
    assert (await swarm.runs.wait(runs[0].id)).status is RunState.SUCCEEDED


# -- budgets -------------------------------------------------------------------------------------


async def test_a_budget_of_sandbox_time_is_never_exceeded(
    swarm: Swarm, finish: Start, tmp_path: Path
) -> None:
    run = await finish(
        f"""
budget: {{vm_seconds: 0.6}}
steps:
  - id: each
    agent: actor
    for_each: [1, 2, 3, 4, 5, 6]
    on_error: continue
    timeout_seconds: 0.25
    inputs: {{wait_for: "{tmp_path}/never"}}
"""
    )
    codes = [error["code"] for error in run.step_results["each"]["errors"]]
    assert codes.count("timeout") >= 1
    assert codes.count("budget") >= 3
    assert run.tree_vm_time_ms == run.total_vm_time_ms
    assert 250 <= run.total_vm_time_ms <= 1_200  # each of the killed may take a moment to die


async def test_steps_know_when_they_began_to_wait(swarm: Swarm, start: Start) -> None:
    before = now_text()
    run = await start(APPROVAL)
    await becomes(swarm, run.id, RunState.WAITING)
    steps = {step.step_id: step for step in await swarm.store.list_steps(run.id)}
    assert steps["ask"].status is StepState.WAITING
    assert before < (steps["ask"].started_at or "") < now_text()
