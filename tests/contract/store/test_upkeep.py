"""What every store promises about finding and deleting what nothing refers to."""

from __future__ import annotations

from typing import Any

from swarm.kernel.ids import new_id
from swarm.store.ports import Store
from swarm.store.records import (
    NO_ITEM,
    AgentRecord,
    AnswerRecord,
    CachedResult,
    EventRecord,
    GrantRecord,
    InvocationRecord,
    NewRun,
    RunChanges,
    RunState,
    StepState,
    WorkflowRecord,
)

OLD, YOUNG = "2026-01-01T00:00:00.000000Z", "2026-03-01T00:00:00.000000Z"
BEFORE = "2026-02-01T00:00:00.000000Z"
LATER = "2100-01-01T00:00:00.000000Z"


def call(agent: AgentRecord, started_at: str, **fields: Any) -> InvocationRecord:
    return InvocationRecord(
        id=new_id("inv"),
        agent_id=agent.id,
        agent_name=agent.name,
        agent_version=agent.version,
        digest=agent.digest,
        status="ok",
        started_at=started_at,
        **fields,
    )


def reference(letter: str) -> str:
    return "sha256:" + letter * 64


async def test_old_calls_outside_runs_are_deleted(
    store: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    run = samples.run(workflow)
    await store.create_run(NewRun(run))
    for record in [*(call(agent, OLD) for _ in range(5)), call(agent, YOUNG)]:
        await store.record_invocation(record)
    await store.record_invocation(call(agent, OLD, run_id=run.id))
    assert await store.purge_invocations(BEFORE, limit=3) == 3
    assert await store.purge_invocations(BEFORE, limit=3) == 2
    assert await store.purge_invocations(BEFORE, limit=3) == 0
    assert len(await store.list_invocations(run.id)) == 1
    assert await store.purge_invocations(LATER) == 1


async def test_only_agents_that_nothing_refers_to_are_deleted(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    names = ("called", "pinned", "stepped", "active", "unused")
    agents = {
        name: await store.add_agent(samples.agent(name=name, digest=reference(name[0])))
        for name in names
    }
    run = samples.run(workflow, agents={"pinned": agents["pinned"].id})
    step = samples.steps(run, "a", agent_id=agents["stepped"].id)
    await store.create_run(NewRun(run, tuple(step)))
    await store.record_invocation(call(agents["called"], OLD))
    for name in names:
        if name != "active":
            await store.remove_agent(name)
    assert await store.purge_agents(OLD) == 0  # they were taken out only now
    assert await store.purge_agents(LATER) == 1
    assert await store.get_agent(agents["unused"].id) is None
    for name in names[:-1]:
        assert await store.get_agent(agents[name].id) is not None
    packages, _ = await store.digests_in_use()
    assert packages == {agents[name].digest for name in names[:-1]}

    assert await store.purge_invocations(LATER) == 1
    assert await store.purge_agents(LATER) == 1
    assert await store.get_agent(agents["called"].id) is None


async def test_grants_go_with_the_last_agent_of_their_package(store: Store, samples: Any) -> None:
    digest = reference("a")
    grants = [GrantRecord(new_id("grt"), digest, "network", "a.test", OLD)]
    await store.add_agent(samples.agent(name="one", digest=digest), grants)
    await store.add_agent(samples.agent(name="two", digest=digest))
    await store.remove_agent("one")
    assert await store.purge_agents(LATER) == 1
    assert len(await store.list_grants(digest)) == 1
    await store.remove_agent("two")
    assert await store.purge_agents(LATER) == 1
    assert await store.list_grants(digest) == []


async def test_environments_in_use_are_those_of_agents_on_record(
    store: Store, samples: Any
) -> None:
    await store.add_agent(samples.agent(name="one", environment_digest="e" * 64))
    await store.add_agent(samples.agent(name="two", digest=reference("c")))
    await store.remove_agent("one")
    assert (await store.digests_in_use())[1] == {"e" * 64}
    await store.purge_agents(LATER)
    assert (await store.digests_in_use())[1] == frozenset()


async def test_artifacts_in_use_are_told_run_by_run(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    def file(letter: str) -> dict[str, Any]:
        return {"$artifact": reference(letter), "name": "x"}

    first = samples.run(workflow, inputs={"a": file("a")}, trigger_data={"deep": [file("b")]})
    second = samples.run(workflow, outputs={"c": file("c")}, status=RunState.SUCCEEDED)
    third = samples.run(workflow, variables={"text": "nothing to see"})
    steps = samples.steps(second, "s", inputs={"d": file("d")}, outputs={"e": file("e")})
    await store.create_run(NewRun(first))
    await store.create_run(NewRun(second, tuple(steps)))
    await store.create_run(NewRun(third))

    assert await store.artifacts_in_use(limit=1) == ({reference("a"), reference("b")}, first.id)
    found, last = await store.artifacts_in_use(first.id)
    assert found == {reference(letter) for letter in "cde"}
    assert last == third.id
    assert await store.artifacts_in_use(last) == (frozenset(), "")


async def test_artifacts_of_forks_and_waits_are_in_use(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow, overrides={"s": {"x": [reference("a")]}})
    steps = samples.steps(
        run, "s", status=StepState.WAITING, wait_kind="approval", wait_details={"x": reference("b")}
    )
    await store.create_run(NewRun(run, tuple(steps)))
    answer = AnswerRecord(run.id, "s", NO_ITEM, {"values": {"file": reference("c")}}, OLD)
    assert await store.answer_wait(answer)
    found, _ = await store.artifacts_in_use()
    assert found == {reference(letter) for letter in "abc"}


async def test_artifacts_of_events_and_cached_results_are_told_page_by_page(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    assert await store.artifacts_outside_runs() == (frozenset(), "")
    for letter in "abc":
        await store.add_event(EventRecord(letter, "e", None, {"f": reference(letter)}, OLD))
    run = samples.run(workflow)
    await store.create_run(NewRun(run))
    cached = tuple(
        CachedResult(letter, {"f": reference(letter)}, run.id, "s", OLD, YOUNG) for letter in "def"
    )
    await store.commit(run.id, 0, RunChanges(cached=cached))
    for limit in (1, 2, 3, 4, 6, 7):
        found: set[str] = set()
        place = ""
        while True:
            page, place = await store.artifacts_outside_runs(place, limit)
            assert len(page) <= limit
            found |= page
            if not place:
                break
        assert found == {reference(letter) for letter in "abcdef"}


async def test_expired_results_and_old_events_are_deleted_in_batches(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow)
    await store.create_run(NewRun(run))
    times = [OLD, OLD, BEFORE, YOUNG]
    for number, time in enumerate(times):
        await store.add_event(EventRecord(str(number), "e", None, None, time))
    cached = tuple(
        CachedResult(str(number), {}, run.id, "s", OLD, time) for number, time in enumerate(times)
    )
    await store.commit(run.id, 0, RunChanges(cached=cached))
    assert [await store.purge_events(BEFORE, limit=1) for _ in range(3)] == [1, 1, 0]
    assert [await store.purge_cached(BEFORE, limit=2) for _ in range(3)] == [2, 1, 0]
    left = await store.find_events("e", None, "", 10, "default")
    assert [event.id for event in left] == ["2", "3"]
    assert await store.cached_result("3", BEFORE) == cached[3]
