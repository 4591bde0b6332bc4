"""Cancelling, resuming, retrying, pruning, and hosts that die or are too late."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.bootstrap.retention import purge_expired, run_files
from swarm.engine.api import RunRequest
from swarm.engine.logs import log_path
from swarm.kernel.clock import now_text
from swarm.kernel.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    OwnershipLost,
    RefusedError,
)
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunChanges, RunFilter, RunRecord, RunState, StepState
from swarm.store.transfer import Imported, export_runs, import_runs
from tests.integration.engine.conftest import appears

Start = Callable[..., Awaitable[RunRecord]]
"""Starts a run of a workflow given as text; see the fixtures ``start`` and ``finish``."""

LONG_AGO = 1_000_000

WAITING = """
steps:
  - {{id: a, agent: actor, inputs: {{touch: "{begun}", wait_for: "{gate}"}}}}
  - {{id: b, agent: actor, needs: [a]}}
"""


async def test_cancel_kills_what_runs_and_ends_the_run(
    swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    run = await start(WAITING.format(begun=begun, gate=tmp_path / "never"))
    await appears(begun)
    ended = await swarm.runs.cancel(run.id)
    assert (ended.status, ended.error_code) == (RunState.CANCELLED, "cancelled")
    assert {step.status for step in await swarm.store.list_steps(run.id)} == {StepState.CANCELLED}
    assert await swarm.runs.cancel(run.id) == ended


async def test_a_run_that_waits_for_its_turn_can_be_cancelled(
    settings: Settings, swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    narrow = replace(settings, max_concurrent_runs=1)
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    first = await start(WAITING.format(begun=begun, gate=gate))
    await appears(begun)
    await swarm.runs.cancel(first.id)
    begun.unlink()
    async with open_swarm(narrow, role="test") as other:
        runs = [
            await other.runs.create(RunRequest("flow", isolation=Isolation.NONE)) for _ in range(2)
        ]
        for run in runs:
            assert await other.runs.start(run.id)
        await appears(begun)
        cancelling = asyncio.create_task(other.runs.cancel(runs[1].id))
        while not (await other.runs.get(runs[1].id)).cancel_requested:  # noqa: ASYNC110
            await asyncio.sleep(0)
        gate.touch()
        assert (await cancelling).status is RunState.CANCELLED
        assert (await other.runs.wait(runs[0].id)).status is RunState.SUCCEEDED


async def test_a_running_step_is_visible_as_running(
    swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    run = await start(WAITING.format(begun=begun, gate=gate))
    await appears(begun)
    first, second = await swarm.store.list_steps(run.id)
    assert (first.status, second.status) == (StepState.RUNNING, StepState.PENDING)
    assert first.inputs is not None
    assert (await swarm.runs.get(run.id)).current_step == "a"
    gate.touch()
    assert (await swarm.runs.wait(run.id)).status is RunState.SUCCEEDED


async def test_a_failed_run_is_resumed_where_it_failed(
    swarm: Swarm, finish: Start, tmp_path: Path
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    run = await finish(
        f"""
steps:
  - {{id: a, agent: actor, inputs: {{notes: "{notes}"}}}}
  - id: b
    agent: actor
    needs: [a]
    inputs: {{notes: "{notes}", require: "{gate}"}}
  - {{id: c, agent: actor, needs: [b], inputs: {{notes: "{notes}"}}}}
"""
    )
    assert run.status is RunState.FAILED
    gate.touch()
    await swarm.runs.resume([run.id])
    ended = await swarm.runs.wait(run.id)
    assert (ended.status, ended.error, ended.error_step) == (RunState.SUCCEEDED, None, None)
    lines = [line.split() for line in notes.read_text().splitlines()]
    assert [line[:2] for line in lines] == [["a", "1"], ["b", "1"], ["b", "2"], ["c", "1"]]
    assert lines[1][2] == lines[2][2]  # the key is stable across attempts


async def test_who_follows_a_resumed_run_late_hears_that_it_was_resumed(
    swarm: Swarm, finish: Start, tmp_path: Path
) -> None:
    gate, hold = tmp_path / "gate", tmp_path / "hold"
    hold.touch()
    run = await finish(
        f"""
steps:
  - {{id: a, agent: actor}}
  - {{id: b, agent: actor, needs: [a], inputs: {{wait_for: "{hold}", require: "{gate}"}}}}
"""
    )
    gate.touch()
    hold.unlink()
    await swarm.runs.resume([run.id])
    while (await swarm.store.list_steps(run.id))[1].status is not StepState.RUNNING:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    heard = []
    async for event in swarm.runs.follow(run.id):
        heard.append((event.kind, event.step_id, event.data.get("resumed")))
        hold.touch()
    assert [each for each in heard if each[0].startswith(("run.", "step."))] == [
        ("step.finished", "a", None),
        ("run.started", None, True),
        ("step.started", "b", None),
        ("step.finished", "b", None),
        ("run.finished", None, None),
    ]


async def test_an_imported_run_is_retried_within_walls_and_not_resumed(
    swarm: Swarm, finish: Start
) -> None:
    """Whatever the file said: it neither takes walls away nor grants folders."""
    run = await finish("steps: [{id: only, agent: actor}]")
    assert run.isolation == "none"
    target = io.BytesIO()
    await export_runs(swarm.store, RunFilter(), target)
    assert await swarm.store.purge_runs(now_text()) == [run.id]
    target.seek(0)
    assert await import_runs(swarm.store, target) == Imported(runs=1)
    with pytest.raises(ConflictError, match="already succeeded"):
        await swarm.runs.resume([run.id])
    with pytest.raises(RefusedError, match="was imported"):
        await swarm.store.reopen_run(run.id, "host_1", RunChanges())
    again = await swarm.runs.retry(run.id)
    assert (again.isolation, again.mounts, again.imported_at) == ("sandbox", {}, None)


async def test_a_run_that_succeeded_cannot_be_resumed_but_retried(
    swarm: Swarm, finish: Start
) -> None:
    run = await finish(
        "inputs: [{name: n, type: integer}]\nsteps: [{id: a, agent: actor}]\n", {"n": 3}
    )
    with pytest.raises(ConflictError, match="already succeeded"):
        await swarm.runs.resume([run.id])
    again = await swarm.runs.retry(run.id)
    assert (again.origin_run_id, again.inputs) == (run.id, {"n": 3})
    assert again.id != run.id


async def test_a_dead_hosts_run_is_taken_over_and_finished_steps_are_kept(
    settings: Settings, swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    notes, begun, gate = tmp_path / "notes", tmp_path / "begun", tmp_path / "gate"
    text = f"""
steps:
  - {{id: a, agent: actor, inputs: {{notes: "{notes}"}}}}
  - id: b
    agent: actor
    needs: [a]
    inputs: {{notes: "{notes}", touch: "{begun}", wait_for: "{gate}"}}
"""
    run = await start(text)
    await appears(begun)
    async with open_swarm(settings, role="test") as other:
        assert await other.runs.orphans() == []
        with pytest.raises(ConflictError, match="another process"):
            await other.runs.resume([run.id])
        await swarm.runs.__aexit__(None, None, None)  # the first host ends without finishing
        assert [orphan.id for orphan in await other.runs.orphans()] == [run.id]
        gate.touch()
        await other.runs.resume()
        assert (await other.runs.wait(run.id)).status is RunState.SUCCEEDED
        invocations = await other.store.list_invocations(run.id)
    assert [line.split()[:2] for line in notes.read_text().splitlines()] == [
        ["a", "1"],
        ["b", "1"],
        ["b", "2"],
    ]
    assert [(one.step_id, one.status) for one in invocations] == [
        ("a", "ok"),
        ("b", "interrupted"),
        ("b", "ok"),
    ]


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_a_host_that_lost_the_run_can_write_nothing_more(
    swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    run = await start(WAITING.format(begun=begun, gate=gate))
    await appears(begun)
    owned = await swarm.runs.get(run.id)
    assert await swarm.store.claim_run(run.id, "somebody-else", owned.owner) is not None
    gate.touch()
    # (On PostgreSQL whoever waits would take it up again, as nobody alive has it.)
    with pytest.raises(OwnershipLost):
        await swarm.runs.wait(run.id)
    assert (await swarm.store.list_steps(run.id))[0].status is StepState.RUNNING


async def test_cancelling_an_orphan_ends_it(swarm: Swarm, finish: Start) -> None:
    await finish("steps: [{id: a, agent: actor}]\n")
    run = await swarm.runs.create(RunRequest("flow", isolation=Isolation.NONE))
    assert (await swarm.runs.cancel(run.id)).status is RunState.CANCELLED


async def test_a_worker_takes_runs_over_and_ends_when_idle(
    settings: Settings, swarm: Swarm, finish: Start
) -> None:
    await finish("steps: [{id: a, agent: actor}]\n")
    orphan = await swarm.runs.create(RunRequest("flow", isolation=Isolation.NONE))
    ready = asyncio.Event()
    async with open_swarm(settings, role="worker") as worker:
        working = asyncio.create_task(worker.runs.work(until_idle=True, on_ready=ready.set))
        await ready.wait()
        handed = await swarm.runs.create(RunRequest("flow", isolation=Isolation.NONE))
        assert not await swarm.runs.start(handed.id)
        assert (await swarm.runs.wait(handed.id)).status is RunState.SUCCEEDED
        assert (await swarm.runs.wait(orphan.id)).status is RunState.SUCCEEDED
        await working


async def test_a_run_is_found_by_the_start_of_its_id(swarm: Swarm, finish: Start) -> None:
    run = await finish("steps: [{id: a, agent: actor}]\n")
    assert (await swarm.runs.get(run.id[:20])).id == run.id
    with pytest.raises(NotFoundError):
        await swarm.runs.get("run_ffffffff")
    await swarm.runs.retry(run.id)
    with pytest.raises(InvalidError, match="several"):
        await swarm.runs.get("run_0")


async def test_ended_runs_are_pruned_after_the_retention(
    settings: Settings, swarm: Swarm, finish: Start
) -> None:
    run: RunRecord = await finish("steps: [{id: a, agent: actor}]\n")
    log = log_path(swarm.home.run_logs, run.id)
    assert log.exists()
    assert await purge_expired(swarm.store, swarm.home, settings.retention_days) == []
    reopened = await swarm.store.reopen_run(run.id, "me", RunChanges())
    assert reopened is not None
    long_ago = {"status": RunState.SUCCEEDED, "completed_at": "2020-01-01T00:00:00.000000Z"}
    await swarm.store.commit(run.id, reopened.epoch, RunChanges(run=long_ago))
    assert await purge_expired(swarm.store, swarm.home, settings.retention_days) == [run.id]
    assert not log.exists()
    with pytest.raises(NotFoundError):
        await swarm.runs.get(run.id)


async def test_what_is_left_of_runs_that_another_machine_has_purged_goes(
    swarm: Swarm, finish: Start
) -> None:
    kept = await finish("steps: [{id: a, agent: actor}]\n")
    gone, young = "run_" + "1" * 32, "run_" + "2" * 32
    old = (log_path(swarm.home.run_logs, kept.id), log_path(swarm.home.run_logs, gone))
    for log in (*old, log_path(swarm.home.run_logs, young)):
        log.touch()
    copies = run_files(swarm.home, gone)
    copies.mkdir(parents=True)
    for path in (*old, copies):
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert await purge_expired(swarm.store, swarm.home, 1.0) == []
    assert {path.stem for path in swarm.home.run_logs.glob("run_*")} == {kept.id, young}
    assert not copies.exists()


async def test_a_run_is_resumed_with_the_agent_that_was_mended(
    swarm: Swarm, finish: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "agent.yaml").write_text(
        "name: broken\nversion: 1.0.0\nruntime: {type: python, entry: main.py}\n"
        "outputs: [{name: said, type: string}]\n"
    )
    (folder / "main.py").write_text("def handler(inputs):\n    raise ValueError('broken')\n")
    await swarm.agents.register(folder)
    run = await finish(
        """
steps:
  - {id: first, agent: actor}
  - {id: second, agent: broken, needs: [first]}
outputs: {said: "${steps.second.outputs.said}"}
"""
    )
    assert run.status is RunState.FAILED
    (folder / "main.py").write_text("def handler(inputs):\n    return {'said': 'mended'}\n")
    await swarm.agents.register(folder)
    await swarm.runs.resume([run.id])
    assert (await swarm.runs.wait(run.id)).error_step == "second"  # pinned: the same agent
    await swarm.runs.resume([run.id], latest=True)
    ended = await swarm.runs.wait(run.id)
    assert (ended.status, ended.outputs) == (RunState.SUCCEEDED, {"said": "mended"})
    first = [one for one in await swarm.store.list_invocations(run.id) if one.step_id == "first"]
    assert len(first) == 1


async def test_a_run_that_failed_before_its_host_died_leaves_no_item_running(
    settings: Settings, swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    text = f"""
steps:
  - id: each
    agent: actor
    for_each: [1, 2, 3]
    max_parallel: 2
    inputs: {{touch: "{begun}", wait_for: "{tmp_path}/never"}}
  - {{id: one, agent: actor, inputs: {{wait_for: "{begun}/../never"}}}}
  - {{id: bad, agent: actor, inputs: {{wait_for: "{begun}", fail: on purpose}}}}
"""
    async with open_swarm(settings, role="test") as dying:
        file = tmp_path / "flow.yaml"
        file.write_text(f"name: flow\nversion: 1.0.0\n{text}")
        await dying.workflows.register(file)
        run = await dying.runs.create(RunRequest("flow", isolation=Isolation.NONE))
        assert await dying.runs.start(run.id)
        while "failed" not in {step.status for step in await swarm.store.list_steps(run.id)}:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert [taken.id for taken in await swarm.runs.resume()] == [run.id]
    ended = await swarm.runs.wait(run.id)
    assert (ended.status, ended.error_step) == (RunState.FAILED, "bad")
    steps = {(step.step_id, step.item_index): step for step in await swarm.store.list_steps(run.id)}
    assert {key: str(step.status) for key, step in steps.items()} == {
        ("each", -1): "cancelled", ("each", 0): "cancelled", ("each", 1): "cancelled",
        ("one", -1): "cancelled", ("bad", -1): "failed",
    }  # fmt: skip
    attempts = await swarm.store.list_invocations(run.id)
    made = {(attempt.step_id, attempt.item_index): attempt.status for attempt in attempts}
    assert made == {
        ("each", 0): "interrupted", ("each", 1): "interrupted",
        ("one", -1): "interrupted", ("bad", -1): "error",
    }  # fmt: skip


async def test_a_step_whose_sandbox_is_killed_is_run_again(
    swarm: Swarm, start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "agent.yaml").write_text(
        "name: victim\nversion: 1.0.0\nruntime: {type: python, entry: main.py}\n"
        "inputs: [{name: folder, type: string}, {name: kills, type: integer}]\n"
        "outputs: [{name: attempt, type: integer}]\n"
    )
    # A module beside it has it run in a process of its own.
    (folder / "other.py").write_text("")
    (folder / "main.py").write_text(
        "import os, signal, other\n"
        "def handler(inputs, context):\n"
        "    if context.attempt <= inputs['kills']:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return {'attempt': context.attempt}\n"
    )
    await swarm.agents.register(folder)
    flow = f"steps: [{{id: a, agent: victim, inputs: {{folder: '{tmp_path}', kills: KILLS}}}}]"
    for kills, state in ((3, RunState.SUCCEEDED), (9, RunState.FAILED)):
        run = await start(flow.replace("KILLS", str(kills)), name=f"kills-{kills}")
        ended = await swarm.runs.wait(run.id)
        assert ended.status is state, ended.error
        invocations = await swarm.store.list_invocations(run.id)
        assert [one.error_code for one in invocations[:3]] == ["killed"] * 3
        assert len(invocations) == 4
        (step,) = await swarm.store.list_steps(run.id)
        assert (step.attempt, step.retry_count) == (4, 0)
