"""Runs that are cancelled, or fail, at an awkward moment: what is recorded of it is true."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.engine.api import RunRequest
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunFilter, RunRecord, RunState, StepState
from tests.integration.engine.conftest import Register, Start, appears

SPENDER = """\
name: spender
version: 1.0.0
runtime: {type: python, entry: main.py}
inputs: [{name: told, type: string}]
"""
SPENDER_CODE = """\
import asyncio
from pathlib import Path


async def handler(inputs, context):
    context.usage(tokens=7)
    Path(inputs["told"]).touch()
    await asyncio.sleep(60)
"""


async def test_what_a_cancelled_attempt_has_used_is_counted(
    swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "spender"
    folder.mkdir()
    (folder / "agent.yaml").write_text(SPENDER)
    (folder / "main.py").write_text(SPENDER_CODE)
    await swarm.agents.register(folder)
    told = tmp_path / "told"
    run = await start(
        f"budget: {{tokens: 100}}\nsteps: [{{id: a, agent: spender, inputs: {{told: '{told}'}}}}]"
    )
    await appears(told)
    ended = await swarm.runs.cancel(run.id)
    assert ended.status is RunState.CANCELLED
    (invocation,) = await swarm.store.list_invocations(run.id)
    assert invocation.tokens == ended.total_api_tokens == ended.tree_api_tokens == 7


async def test_a_run_that_is_cancelled_between_attempts_keeps_the_record_of_the_last(
    swarm: Swarm, start: Start
) -> None:
    run = await start(
        "steps: [{id: a, agent: actor, inputs: {fail: no}, "
        "retry: {attempts: 3, delay_seconds: 60}}]"
    )
    async for event in swarm.runs.follow(run.id):
        if event.kind == "step.retrying":
            break
    await swarm.runs.cancel(run.id)
    (invocation,) = await swarm.store.list_invocations(run.id)
    assert (invocation.status, invocation.error_code) == ("error", "error")


async def test_a_run_that_is_taken_over_between_attempts_keeps_the_record_of_the_last(
    settings: Settings, swarm: Swarm, start: Start
) -> None:
    run = await start(
        "steps: [{id: a, agent: actor, inputs: {fail_times: 1}, "
        "retry: {attempts: 3, delay_seconds: 60}}]"
    )
    async for event in swarm.runs.follow(run.id):
        if event.kind == "step.retrying":
            break
    await swarm.runs.__aexit__(None, None, None)
    async with open_swarm(settings, role="test") as other:
        await other.runs.adopt(run.id)
        assert (await other.runs.wait(run.id)).status is RunState.SUCCEEDED
        invocations = await other.store.list_invocations(run.id)
    assert [each.status for each in invocations] == ["error", "ok"]


async def test_the_cause_of_a_failure_is_told_not_the_call_that_it_ended(
    swarm: Swarm, finish: Start, register: Register
) -> None:
    await register("waits", "steps: [{id: asked, wait: {approval: {message: 'Go on?'}}}]")
    run = await finish(
        """
steps:
  - {id: calls, workflow: waits}
  - {id: first, wait: {duration: 0.3}}
  - {id: breaks, agent: actor, inputs: {fail: no}, needs: [first]}
"""
    )
    assert (run.status, run.error_step, run.error_code) == (RunState.FAILED, "breaks", "error")
    steps = {step.step_id: step for step in await swarm.store.list_steps(run.id)}
    assert steps["calls"].status is StepState.CANCELLED
    (child,) = await swarm.store.list_runs(RunFilter(parent_run_id=run.id))
    assert child.status is RunState.CANCELLED


async def test_a_run_that_does_what_follows_its_success_is_cancelled_no_more(
    settings: Settings, swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    told, go_on = tmp_path / "told", tmp_path / "go-on"
    run = await start(
        f"""
steps: [{{id: a, agent: actor}}]
on_success: [{{step: {{id: good, agent: actor, inputs: {{touch: '{told}', wait_for: '{go_on}'}}}}}}]
on_cancel: [{{step: {{id: bad, agent: actor}}}}]
"""
    )
    await appears(told)
    await swarm.runs.__aexit__(None, None, None)
    go_on.touch()
    async with open_swarm(settings, role="test") as other:
        await other.store.request_cancel(run.id)
        await other.runs.adopt(run.id)
        assert (await other.runs.wait(run.id)).status is RunState.SUCCEEDED
        steps = {step.step_id: step for step in await other.store.list_steps(run.id)}
        invocations = await other.store.list_invocations(run.id)
    assert [steps[name].status for name in ("good", "bad")] == [
        StepState.SUCCEEDED,
        StepState.SKIPPED,
    ]
    made = [(each.status, each.attempt) for each in invocations if each.step_id == "good"]
    assert made == [("interrupted", 1), ("ok", 2)]


async def test_a_run_that_waited_here_for_its_turn_and_went_elsewhere_keeps_nobody(
    settings: Settings, swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    """A worker that ends when idle would else stay for ever."""
    go_on = tmp_path / "go-on"
    first = await start(
        "concurrency: {limit: 1}\n"
        f"steps: [{{id: a, agent: actor, inputs: {{wait_for: '{go_on}'}}}}]"
    )
    request = RunRequest("flow", {}, isolation=Isolation.NONE)
    async with open_swarm(settings, role="worker") as worker:
        await work_until_idle(worker, swarm, request, first, go_on)


async def work_until_idle(
    worker: Swarm, swarm: Swarm, request: RunRequest, first: RunRecord, go_on: Path
) -> None:
    second = await swarm.runs.create(request)
    is_queued = [await each.runs.adopt(second.id) for each in (worker, swarm)]
    # On PostgreSQL it waits in no process that has heard of the worker: it is given a job when
    # its turn comes.
    assert all(is_queued) or worker.settings.database_url is not None
    go_on.touch()
    await swarm.runs.wait(first.id)
    await swarm.runs.wait(second.id)
    await worker.runs.work(until_idle=True, on_ready=lambda: None)


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_who_follows_a_run_that_waits_for_its_turn_elsewhere_hears_its_end(
    settings: Settings, swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    """Also if whoever had it queued has left meanwhile."""
    go_on = tmp_path / "go-on"
    first = await start(
        "concurrency: {limit: 1}\n"
        f"steps: [{{id: a, agent: actor, inputs: {{wait_for: '{go_on}'}}}}]"
    )
    async with open_swarm(settings, role="run") as follower:
        async with open_swarm(settings, role="worker") as worker:
            second = await swarm.runs.create(RunRequest("flow", {}, isolation=Isolation.NONE))
            assert await worker.runs.adopt(second.id)
            waiting = asyncio.create_task(follower.runs.wait(second.id))
            while not (follower.peers.is_host or waiting.done()):  # noqa: ASYNC110 - a look
                await asyncio.sleep(0.005)
        assert not waiting.done(), waiting.result()
        go_on.touch()
        await swarm.runs.wait(first.id)
        assert (await waiting).status is RunState.SUCCEEDED
