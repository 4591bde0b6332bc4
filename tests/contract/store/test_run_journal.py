"""What every store promises about runs, steps and invocations."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import ConflictError, InvalidError, NotFoundError, OwnershipLost
from swarm.kernel.ids import new_id
from swarm.store.ports import Store
from swarm.store.records import (
    AgentRecord,
    InvocationRecord,
    NewRun,
    RunChanges,
    RunFilter,
    RunRecord,
    RunState,
    StepState,
    WorkflowRecord,
)

TIME = "2026-01-31T12:00:00.000000Z"


def invocation(agent: AgentRecord, **fields: Any) -> InvocationRecord:
    base = InvocationRecord(
        id=new_id("inv"),
        agent_id=agent.id,
        agent_name=agent.name,
        agent_version=agent.version,
        digest=agent.digest,
        status="running",
    )
    return replace(base, **fields)


async def end(store: Store, run: RunRecord, state: RunState, time: str = TIME) -> None:
    await store.commit(
        run.id, run.epoch, RunChanges(run={"status": state, "completed_at": time, "error": "x"})
    )


async def test_a_run_and_its_steps_come_back_as_they_were(
    store: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    run = samples.run(
        workflow,
        workflows={"child": workflow.id},
        overrides={"a": {"x": 2}},
        labels={"env": "prod"},
        priority=3,
        wake_at=TIME,
        trigger_data={"by": "hand"},
        inputs={"z": None, "a": {"$artifact": "sha256:1"}},
        variables={"v": [1, 2.5]},
        outputs={"ok": True},
        agents={"echo": agent.id},
        mounts={"live:1": "/some/folder"},
        isolation="none",
        owner="host_1",
        origin_run_id="run_parent",
        started_at=TIME,
        cancel_requested=True,
    )
    steps = samples.steps(run, "b", "a", "c", agent_id=agent.id, inputs={"x": 1}, vm_id="box")
    steps[0] = replace(steps[0], wait_kind="timer", wait_details={"form": [1]}, wake_at=TIME)
    await store.create_run(NewRun(run, tuple(steps)))
    assert await store.get_run(run.id) == run
    assert await store.list_steps(run.id) == steps, "in the order they were created"
    assert await store.get_run("run_none") is None
    assert await store.list_steps("run_none") == []


async def test_a_run_is_created_whole_or_not_at_all(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow)
    with pytest.raises(NotFoundError):
        await store.create_run(
            NewRun(run, tuple(samples.steps(run, "a", agent_id="agent_unknown")))
        )
    with pytest.raises(NotFoundError):
        await store.create_run(NewRun(samples.run(replace(workflow, id="wf_unknown"))))
    assert await store.get_run(run.id) is None
    await store.create_run(NewRun(run))
    with pytest.raises(ConflictError):
        await store.create_run(NewRun(run))


async def test_a_commit_changes_run_steps_and_invocations_together(
    store: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    run = samples.run(workflow)
    first, second = samples.steps(run, "first", "second")
    await store.create_run(NewRun(run, (first, second)))
    done = replace(first, status=StepState.SUCCEEDED, outputs={"echoed": "hi"}, duration_ms=3)
    started = replace(second, status=StepState.RUNNING, started_at=TIME)
    item = replace(second, id=new_id("step"), item_index=0, status=StepState.RUNNING)
    call = invocation(agent, run_id=run.id, step_id="first", layers=("pid", "seccomp"))
    await store.commit(
        run.id,
        0,
        RunChanges(
            steps=(done, started, item),
            invocations=(call,),
            run={"status": RunState.RUNNING, "current_step": "second", "outputs": {"x": [1]}},
        ),
    )
    assert await store.list_steps(run.id) == [done, started, item]
    assert await store.list_invocations(run.id) == [call]
    assert await store.get_run(run.id) == replace(
        run, status=RunState.RUNNING, current_step="second", outputs={"x": [1]}
    )

    ended = replace(call, status="ok", wall_ms=12, peak_memory_bytes=2**40)
    await store.commit(run.id, 0, RunChanges(invocations=(ended,)))
    assert await store.list_invocations(run.id) == [ended]


async def test_a_stale_epoch_changes_nothing(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow)
    (step,) = samples.steps(run, "first")
    await store.create_run(NewRun(run, (step,)))
    claimed = await store.claim_run(run.id, "host_1", None)
    assert claimed == replace(run, owner="host_1", epoch=1)
    taken = await store.claim_run(run.id, "host_2", "host_1")
    assert taken is not None
    assert taken.epoch == 2

    late = RunChanges(steps=(replace(step, status=StepState.SUCCEEDED),))
    with pytest.raises(OwnershipLost):
        await store.commit(run.id, 1, late)
    with pytest.raises(OwnershipLost):
        await store.commit(run.id, 1, replace(late, run={"status": RunState.SUCCEEDED}))
    with pytest.raises(OwnershipLost):
        await store.commit("run_none", 0, RunChanges())
    ended = RunChanges(run={"status": RunState.SUCCEEDED})
    for changes in (late, ended):
        with pytest.raises(OwnershipLost):
            await store.commit(run.id, 2, changes, owner="host_1")
        with pytest.raises(OwnershipLost):
            await store.release_run(run.id, 2, changes, owner="host_1")
    assert await store.list_steps(run.id) == [step]
    assert await store.get_run(run.id) == taken
    await store.commit(run.id, 2, late, owner="host_2")


async def test_a_bad_commit_harms_only_itself(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    runs = [samples.run(workflow) for _ in range(60)]
    steps = [samples.steps(run, "only")[0] for run in runs]
    await asyncio.gather(
        *(store.create_run(NewRun(run, (step,))) for run, step in zip(runs, steps, strict=True))
    )

    def commit(number: int) -> Any:
        done = replace(steps[number], status=StepState.SUCCEEDED)
        if number % 10 == 3:
            done = replace(done, agent_id="agent_unknown")
        if number % 10 == 5:
            done = replace(done, duration_ms=2**80)
        return store.commit(runs[number].id, 7 if number % 10 == 4 else 0, RunChanges((done,)))

    results = await asyncio.gather(*map(commit, range(60)), return_exceptions=True)
    kinds = {3: NotFoundError, 4: OwnershipLost, 5: InvalidError}
    for number, result in enumerate(results):
        expected = kinds.get(number % 10)
        assert result is None if expected is None else isinstance(result, expected)
        (step,) = await store.list_steps(runs[number].id)
        assert step.status == ("pending" if expected else "succeeded")


async def test_fields_that_are_not_the_journals_to_set_are_refused(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow)
    await store.create_run(NewRun(run))
    for name in ("id", "epoch", "project_id", "nonsense", "status = 'failed' --"):
        with pytest.raises(InvalidError):
            await store.commit(run.id, 0, RunChanges(run={name: "x"}))
    assert await store.get_run(run.id) == run


async def test_only_one_of_many_claims_wins(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow)
    await store.create_run(NewRun(run))
    claims = [store.claim_run(run.id, f"host_{number}", None) for number in range(20)]
    won = [claim for claim in await asyncio.gather(*claims) if claim]
    assert len(won) == 1
    assert await store.get_run(run.id) == won[0]


async def test_runs_that_nobody_owns_are_taken_together_with_their_steps(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    free, owned, ended, limited, cancelled, long = (samples.run(workflow) for _ in range(6))
    owned = replace(owned, owner="host_1")
    limited = replace(limited, concurrency_key="key", concurrency_limit=1)
    cancelled = replace(cancelled, concurrency_key="key", concurrency_limit=1)
    steps = {run.id: samples.steps(run, "b", "a") for run in (free, cancelled)}
    steps[long.id] = samples.steps(long, *(f"step-{number}" for number in range(40)))
    for run in (free, owned, ended, limited, cancelled, long):
        await store.create_run(NewRun(run, tuple(steps.get(run.id, ()))))
    await end(store, ended, RunState.FAILED)
    await store.request_cancel(cancelled.id)

    asked = [run.id for run in (owned, ended, limited, cancelled, long, free)]
    taken = {each.run.id: each for each in await store.take_runs([*asked, "run_none"], "host_2")}
    assert taken.keys() == {free.id, cancelled.id, long.id}
    for run in (free, cancelled, long):
        assert taken[run.id].run == await store.get_run(run.id)
        assert (taken[run.id].run.owner, taken[run.id].run.epoch) == ("host_2", 1)
    assert taken[free.id].steps == tuple(steps[free.id]), "in the order they were created"
    assert taken[cancelled.id].steps == tuple(steps[cancelled.id])
    assert taken[long.id].steps is None, "it has many"
    assert await store.take_runs(asked, "host_3") == []


async def test_each_run_is_taken_once(store: Store, samples: Any, workflow: WorkflowRecord) -> None:
    runs: list[RunRecord] = [samples.run(workflow) for _ in range(8)]
    for run in runs:
        await store.create_run(NewRun(run))
    ids = [run.id for run in runs]
    taken, claimed = await asyncio.gather(
        asyncio.gather(*(store.take_runs(ids[n:] + ids[:n], f"host_{n}") for n in range(8))),
        asyncio.gather(*(store.claim_run(run_id, "host_9", None) for run_id in ids)),
    )
    won = [each.run.id for several in taken for each in several]
    won += [run.id for run in claimed if run is not None]
    assert sorted(won) == sorted(ids)


async def test_an_ended_run_cannot_be_claimed_or_cancelled_but_reopened(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow)
    (step,) = samples.steps(run, "first", status=StepState.FAILED)
    await store.create_run(NewRun(run, (step,)))
    assert await store.reopen_run(run.id, "host_1", RunChanges()) is None

    await end(store, run, RunState.FAILED)
    ended = await store.get_run(run.id)
    assert ended is not None
    assert await store.claim_run(run.id, "host_1", None) is None
    assert await store.request_cancel(run.id) == ended

    again = replace(step, status=StepState.PENDING)
    reopened = await store.reopen_run(
        run.id, "host_1", RunChanges(steps=(again,), run={"current_step": "first"})
    )
    assert reopened == replace(
        run, status=RunState.RUNNING, owner="host_1", epoch=1, current_step="first"
    )
    assert await store.list_steps(run.id) == [again]
    assert await store.reopen_run(run.id, "host_2", RunChanges()) is None


async def test_cancel_is_requested_once_and_kept(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow)
    await store.create_run(NewRun(run))
    asked = replace(run, cancel_requested=True)
    assert await store.request_cancel(run.id) == asked
    assert await store.request_cancel(run.id) == asked
    assert await store.request_cancel("run_none") is None


async def test_runs_are_listed_newest_first_by_filter_and_page(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    other = await store.add_workflow(samples.workflow(name="other"))
    runs = []
    for number in range(12):
        run = samples.run(
            other if number % 3 == 0 else workflow,
            status=list(RunState)[number % 6],
            owner="host_1" if number % 2 else None,
        )
        await store.create_run(NewRun(run))
        runs.insert(0, run)

    async def listed(**filters: Any) -> list[RunRecord]:
        return await store.list_runs(RunFilter(**filters))

    assert await listed() == runs
    assert await listed(limit=5) == runs[:5]
    assert await listed(limit=5, before_id=runs[4].id) == runs[5:10]
    assert await listed(workflow="other") == [run for run in runs if run.workflow_name == "other"]
    assert await listed(owner="host_1") == [run for run in runs if run.owner]
    states = (RunState.FAILED, RunState.RUNNING)
    assert await listed(states=states) == [run for run in runs if run.status in states]
    both = [run for run in runs if run.status in states and run.workflow_name != "other"]
    assert await listed(states=states, workflow="echo-chain", limit=2) == both[:2]
    assert await listed(project_id="elsewhere") == []
    assert await store.unfinished_runs() == [
        run
        for run in reversed(runs)
        if not run.status.is_final and (run.owner or run.status != RunState.WAITING)
    ], "waiting runs that nobody drives are left out"
    unfinished = await store.unfinished_runs()
    page = await store.unfinished_runs(limit=2)
    assert page == unfinished[:2]
    assert await store.unfinished_runs(page[-1].id) == unfinished[2:]
    assert await store.unfinished_runs(begun=True) == [
        run for run in unfinished if run.status is not RunState.PENDING
    ]


async def test_a_summary_leaves_the_documents_out(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow, inputs={"a": 1}, outputs={"b": 2}, step_results={"c": 3})
    await store.create_run(NewRun(run))
    (summary,) = await store.list_runs(RunFilter(documents=False))
    assert summary == replace(run, inputs={}, outputs=None, step_results={})


async def test_runs_are_found_by_the_start_of_their_id(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    ids = ["run_aa1", "run_aa2", "run_ab", "run_b"]
    for run_id in ids:
        await store.create_run(NewRun(samples.run(workflow, id=run_id)))

    async def found(prefix: str, limit: int = 10) -> list[str]:
        return [run.id for run in await store.find_runs(prefix, limit)]

    assert await found("run_aa") == ids[:2]
    assert await found("a") == ids[:3]
    assert await found("aa1") == ids[:1]
    assert await found("", limit=2) == ids[:2]
    assert await found("run_%") == []
    assert await found("c") == []


async def test_an_invocation_outside_any_run_is_recorded(
    store: Store, samples: Any, agent: AgentRecord
) -> None:
    call = invocation(agent)
    await store.record_invocation(call)
    await store.record_invocation(replace(call, status="ok", cpu_ms=5))
    with pytest.raises(NotFoundError):
        await store.record_invocation(invocation(replace(agent, id="agent_unknown")))


async def test_purging_deletes_old_ended_runs_with_their_rows(
    store: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    old, older, young, live = (samples.run(workflow) for _ in range(4))
    for run in (old, older, young, live):
        await store.create_run(NewRun(run, tuple(samples.steps(run, "a", "b"))))
        call = invocation(agent, run_id=run.id, step_id="a")
        await store.commit(run.id, 0, RunChanges(invocations=(call,)))
    await end(store, old, RunState.SUCCEEDED, "2026-01-02T00:00:00.000000Z")
    await end(store, older, RunState.CANCELLED, "2026-01-01T00:00:00.000000Z")
    await end(store, young, RunState.FAILED, "2026-02-01T00:00:00.000000Z")

    before = "2026-01-15T00:00:00.000000Z"
    assert await store.purge_runs(before, limit=1) == [older.id]
    assert await store.purge_runs(before) == [old.id]
    assert await store.purge_runs(before) == []
    assert await store.get_run(old.id) is None
    assert await store.list_steps(old.id) == []
    assert await store.list_invocations(old.id) == []
    assert len(await store.list_steps(young.id)) == 2
    assert {run.id for run in await store.list_runs(RunFilter())} == {young.id, live.id}


async def test_no_run_is_deleted_before_the_one_that_called_it_has_ended(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    """The caller may not have looked yet how it ended: a worker may be behind, or away."""
    caller = samples.run(workflow)
    called = samples.run(workflow, parent_run_id=caller.id, root_run_id=caller.id)
    for run in (caller, called):
        await store.create_run(NewRun(run))
    await end(store, called, RunState.SUCCEEDED, "2026-01-01T00:00:00.000000Z")
    before = "2026-01-15T00:00:00.000000Z"
    assert await store.purge_runs(before) == []
    assert await store.delete_runs([called.id]) == []
    await end(store, caller, RunState.SUCCEEDED, "2026-02-01T00:00:00.000000Z")
    assert await store.purge_runs(before) == [called.id]


async def test_runs_that_are_named_are_deleted_if_they_have_ended(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    ended, live, other = (samples.run(workflow) for _ in range(3))
    for run in (ended, live, other):
        await store.create_run(NewRun(run, tuple(samples.steps(run, "a"))))
    await end(store, ended, RunState.FAILED, "2026-01-02T00:00:00.000000Z")
    await end(store, other, RunState.FAILED, "2026-01-02T00:00:00.000000Z")
    many = [f"run_{number}" for number in range(500)]
    assert await store.delete_runs([*many, live.id, ended.id]) == [ended.id]
    assert await store.delete_runs([]) == []
    await store.claim_run(live.id, "host_1", None)
    assert await store.run_owners([*many, ended.id, live.id, *many, other.id]) == {
        live.id: (RunState.PENDING, "host_1"),
        other.id: (RunState.FAILED, None),
    }
    assert await store.run_owners([]) == {}
    assert await store.list_steps(ended.id) == []
    assert {run.id for run in await store.list_runs(RunFilter())} == {other.id, live.id}
    assert await store.check() == []


async def test_purging_goes_on_over_many_commits(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    runs = [samples.run(workflow, status=RunState.SUCCEEDED, completed_at=TIME) for _ in range(50)]
    await asyncio.gather(*(store.create_run(NewRun(run)) for run in runs))
    assert len(await store.purge_runs("2027-01-01T00:00:00.000000Z", limit=45)) == 45
    assert len(await store.purge_runs("2027-01-01T00:00:00.000000Z", limit=45)) == 5
