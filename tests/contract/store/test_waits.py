"""What every store promises about runs that wait: for a place, a moment, an answer, an event."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.clock import now_text
from swarm.kernel.errors import OwnershipLost
from swarm.store.ports import Store
from swarm.store.records import (
    DEFAULT_PROJECT,
    NO_ITEM,
    AnswerRecord,
    EventRecord,
    NewRun,
    RunChanges,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
    WorkflowRecord,
)

SOON, LATER, LATEST = (f"2100-01-0{day}T00:00:00.000000Z" for day in (1, 2, 3))


def waiting(step: StepRecord, kind: str, **fields: Any) -> StepRecord:
    return replace(step, status=StepState.WAITING, wait_kind=kind, **fields)


def event(event_id: str, name: str = "paid", key: str | None = None, **fields: Any) -> EventRecord:
    return replace(EventRecord(event_id, name, key, {"n": 1}, now_text()), **fields)


def answer(run: RunRecord, step: str = "a", by: str = "ann") -> AnswerRecord:
    return AnswerRecord(run.id, step, NO_ITEM, {"approved": True, "by": by}, now_text())


async def claimed(
    store: Store, samples: Any, workflow: WorkflowRecord, *steps: str, **fields: Any
) -> tuple[RunRecord, list[StepRecord]]:
    """A new run that host_1 drives, and its steps."""
    run = samples.run(workflow, **fields)
    made = samples.steps(run, *steps)
    await store.create_run(NewRun(run, tuple(made)))
    claim = await store.claim_run(run.id, "host_1", None)
    assert claim is not None
    return claim, made


async def put_to_sleep(
    store: Store, run: RunRecord, *steps: StepRecord, wake_at: str | None = None
) -> bool:
    changes = RunChanges(steps, run={"status": RunState.WAITING, "wake_at": wake_at})
    return await store.release_run(run.id, run.epoch, changes)


# A limit per key


async def test_no_more_runs_with_a_key_are_claimed_than_it_has_places(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    runs = [
        samples.run(workflow, concurrency_key="k", concurrency_limit=2, priority=number % 3)
        for number in range(6)
    ]
    for run in [*runs, samples.run(workflow, concurrency_key="other", concurrency_limit=1)]:
        await store.create_run(NewRun(run))
    queued = await store.queued_runs("k", DEFAULT_PROJECT)
    order = sorted(runs, key=lambda run: (-run.priority, run.id))
    assert [run.id for run in queued] == [run.id for run in order]
    assert await store.queued_runs("k", DEFAULT_PROJECT, limit=2) == queued[:2]
    assert await store.queued_runs("k", "elsewhere") == []

    claims = await asyncio.gather(*(store.claim_run(run.id, "host_1", None) for run in runs))
    first, second = (claim for claim in claims if claim is not None)
    queued = await store.queued_runs("k", DEFAULT_PROJECT)
    assert {run.id for run in queued} == {run.id for run in runs} - {first.id, second.id}

    # Whoever waits keeps its place; whoever has ended does not.
    assert await put_to_sleep(store, first)
    assert await store.claim_run(queued[0].id, "host_1", None) is None
    assert await store.claim_run(second.id, "host_2", "host_1") is not None, "a takeover"
    await store.commit(second.id, 2, RunChanges(run={"status": RunState.SUCCEEDED}))
    assert await store.claim_run(queued[0].id, "host_1", None) is not None
    assert await store.claim_run(queued[1].id, "host_1", None) is None
    again = await store.claim_run(first.id, "host_1", None)
    assert again is not None, "a run that waited is not held up"


async def test_a_queued_run_can_be_claimed_to_cancel_it(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    await claimed(store, samples, workflow, concurrency_key="k", concurrency_limit=1)
    late = samples.run(workflow, concurrency_key="k", concurrency_limit=1)
    await store.create_run(NewRun(late))
    assert await store.claim_run(late.id, "host_1", None) is None
    await store.request_cancel(late.id)
    assert await store.claim_run(late.id, "host_1", None) is not None


# Moments


async def test_sleeping_runs_are_due_when_their_moment_has_come(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    assert await store.next_wake() is None
    runs = [(await claimed(store, samples, workflow))[0] for _ in range(4)]
    for run, wake_at in zip(runs, (LATEST, SOON, LATER, None), strict=True):
        assert await put_to_sleep(store, run, wake_at=wake_at)
    asleep = await store.get_run(runs[1].id)
    assert asleep is not None
    assert (asleep.owner, asleep.status, asleep.wake_at) == (None, RunState.WAITING, SOON)

    assert await store.next_wake() == SOON
    assert await store.due_runs("2026-01-01T00:00:00.000000Z") == []
    assert await store.due_runs(LATER) == [runs[1].id, runs[2].id]
    assert await store.due_runs(LATEST, limit=1) == [runs[1].id]
    assert await store.unfinished_runs() == []

    awake = await store.claim_run(runs[1].id, "host_2", None)
    assert awake == replace(asleep, owner="host_2", wake_at=None, epoch=2)
    assert await store.due_runs(LATEST) == [runs[2].id, runs[0].id]
    assert await store.next_wake() == LATER
    assert await store.unfinished_runs() == [awake], "somebody drives it"


async def test_only_the_owner_gives_a_run_up(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run, (step,) = await claimed(store, samples, workflow, "a")
    with pytest.raises(OwnershipLost):
        await put_to_sleep(store, replace(run, epoch=0), waiting(step, "timer"))
    assert await store.get_run(run.id) == run
    assert await store.list_steps(run.id) == [step]


async def test_a_run_to_be_cancelled_is_not_given_up(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run, (step,) = await claimed(store, samples, workflow, "a")
    await store.request_cancel(run.id)
    assert not await put_to_sleep(store, run, waiting(step, "timer"))
    assert await store.get_run(run.id) == replace(run, cancel_requested=True)
    assert await store.list_steps(run.id) == [step]


# Answers


async def test_the_first_answer_to_a_waiting_step_stands(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run, (step, timer) = await claimed(store, samples, workflow, "a", "b")
    assert not await store.answer_wait(answer(run)), "it does not wait yet"
    assert await put_to_sleep(store, run, waiting(step, "approval"), waiting(timer, "timer"))
    assert not await store.answer_wait(answer(run, "b")), "it waits for something else"
    assert not await store.answer_wait(answer(run, "c"))
    answers = [answer(run, by=name) for name in ("ann", "bob", "cyd")]
    taken = await asyncio.gather(*map(store.answer_wait, answers))
    assert sorted(taken) == [False, False, True]
    assert await store.list_answers(run.id) == [answers[taken.index(True)]]
    assert await store.list_answers("run_none") == []


async def test_a_run_whose_answer_has_come_is_not_given_up(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run, (step,) = await claimed(store, samples, workflow, "a")
    asking = waiting(step, "approval")
    await store.commit(run.id, run.epoch, RunChanges((asking,)))
    assert await store.answer_wait(answer(run))
    assert not await put_to_sleep(store, run, asking)
    assert await store.get_run(run.id) == run
    taken = replace(asking, status=StepState.SUCCEEDED)
    assert await put_to_sleep(store, run, taken), "the answer was taken"


async def test_answers_are_forgotten_when_their_step_starts_over(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run, steps = await claimed(store, samples, workflow, "a", "b")
    asking = [waiting(step, "approval") for step in steps]
    await store.commit(run.id, run.epoch, RunChanges(tuple(asking)))
    assert await store.answer_wait(answer(run, "a"))
    assert await store.answer_wait(answer(run, "b"))
    await store.commit(run.id, run.epoch, RunChanges(run={"status": RunState.FAILED}))
    await store.reopen_run(run.id, "host_1", RunChanges((asking[0],)))
    assert [one.step_id for one in await store.list_answers(run.id)] == ["b"]
    assert await store.answer_wait(answer(run, "a"))


async def test_waiting_steps_are_listed_oldest_first(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    made = []
    for kind in ("approval", "event", "approval"):
        run, (step, _) = await claimed(store, samples, workflow, "a", "b")
        made.append(waiting(step, kind, wait_details={"title": "Go?"}, wait_name="n"))
        await put_to_sleep(store, run, made[-1])
    assert await store.waiting_steps("approval") == [made[0], made[2]]
    assert await store.waiting_steps("approval", limit=1) == [made[0]]
    assert await store.waiting_steps("event") == [made[1]]
    assert await store.waiting_steps("approval", project_id="elsewhere") == []


# Events


async def test_an_event_is_told_to_whom_it_concerns(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    waits = {
        "any": {"wait_name": "paid"},
        "seven": {"wait_name": "paid", "wait_key": "7"},
        "eight": {"wait_name": "paid", "wait_key": "8"},
        "sent": {"wait_name": "sent"},
    }
    ids = {}
    for name, fields in waits.items():
        run, steps = await claimed(store, samples, workflow, "a", "b")
        ids[name] = run.id
        await put_to_sleep(store, run, *(waiting(step, "event", **fields) for step in steps))

    assert await store.add_event(event("e1", key="7")) == [ids["any"], ids["seven"]]
    assert await store.add_event(event("e2")) == [ids["any"]]
    assert await store.add_event(event("e3", "sent", key="x")) == [ids["sent"]]
    assert await store.add_event(event("e4", "nothing")) == []
    old = event("e5", received_at="2020-01-01T00:00:00.000000Z")
    assert await store.add_event(old) == [], "the runs were created later"
    assert await store.add_event(event("e6", key="7", project_id="elsewhere")) == []

    again = event("e1", "sent")
    assert await store.add_event(again) == [ids["any"], ids["seven"]], "it stands as it was"
    assert len(await store.find_events("paid", None, "", 10, DEFAULT_PROJECT)) == 3


@pytest.mark.parametrize("payload", [1, 1.0, -2.5e300, "1", "null", True, None, [], {"a": 0}])
async def test_an_events_payload_is_any_json(store: Store, payload: Any) -> None:
    await store.add_event(event("e1", payload=payload))
    (found,) = await store.find_events("paid", None, "", 1, DEFAULT_PROJECT)
    assert repr(found.payload) == repr(payload), "a number stays the number that it was"


async def test_events_are_found_by_name_and_key_in_order(store: Store) -> None:
    times = [LATER, SOON, LATEST, SOON]
    events = [
        event(f"e{number}", key=str(number % 2), received_at=time, payload=[None, number])
        for number, time in enumerate(times)
    ]
    events.append(event("none", received_at=LATER, payload=None))
    events.append(event("e0", received_at=SOON, project_id="elsewhere"))
    for one in events:
        await store.add_event(one)

    async def found(key: str | None, after: str = "", limit: int = 10) -> list[EventRecord]:
        return await store.find_events("paid", key, after, limit, DEFAULT_PROJECT)

    in_order = [events[number] for number in (1, 3, 0, 4, 2)]
    assert await found(None) == in_order
    assert await found(None, limit=2) == in_order[:2]
    assert await found(None, after=SOON) == in_order[2:]
    assert await found("0") == [events[0], events[2]]
    assert await found("1", after=SOON) == []
    assert await store.find_events("paid", None, "", 10, "elsewhere") == [events[5]]


async def test_any_json_value_may_be_what_an_event_tells(store: Store) -> None:
    values: list[Any] = [3, -0.5, 1e300, "3", "", "null", True, None, [], {}]
    for number, value in enumerate(values):
        await store.add_event(event(f"e{number}", payload=value))
    found = await store.find_events("paid", None, "", 20, DEFAULT_PROJECT)
    payloads = {one.id: one.payload for one in found}
    assert [payloads[f"e{number}"] for number in range(len(values))] == values


@pytest.mark.parametrize(
    ("name", "key", "is_awaited"),
    [("paid", "7", True), ("paid", None, False), ("paid", "8", False), ("sent", "7", False)],
)
async def test_a_run_whose_event_has_come_is_not_given_up(
    store: Store,
    samples: Any,
    workflow: WorkflowRecord,
    name: str,
    key: str | None,
    is_awaited: bool,
) -> None:
    """However the event came in between: before the step was seen to wait for it."""
    early = event("early", "paid", "7")
    await store.add_event(early)
    run, (step,) = await claimed(store, samples, workflow, "a")
    expecting = waiting(step, "event", wait_name="paid", wait_key="7")
    await store.add_event(event("e1", name, key))
    assert await put_to_sleep(store, run, expecting) is not is_awaited
    assert await store.list_steps(run.id) == [step if is_awaited else expecting]


async def test_any_key_will_do_for_a_step_that_names_none(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run, (step,) = await claimed(store, samples, workflow, "a")
    await store.add_event(event("e1", key="7"))
    assert not await put_to_sleep(store, run, waiting(step, "event", wait_name="paid"))


async def test_runs_that_can_go_on_are_found_when_nobody_was_told(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "answered": ("approval", {}),
        "asking": ("approval", {}),
        "any": ("event", {"wait_name": "paid"}),
        "seven": ("event", {"wait_name": "paid", "wait_key": "7"}),
        "eight": ("event", {"wait_name": "paid", "wait_key": "8"}),
        "sent": ("event", {"wait_name": "sent"}),
        "due": ("timer", {}),
        "later": ("timer", {}),
    }
    runs = {}
    for name, (kind, fields) in kinds.items():
        runs[name], (step,) = await claimed(store, samples, workflow, "a")
        wake_at = {"due": SOON, "later": LATEST}.get(name)
        assert await put_to_sleep(store, runs[name], waiting(step, kind, **fields), wake_at=wake_at)
    assert await store.ready_runs(LATER) == [runs["due"].id]
    assert await store.answer_wait(answer(runs["answered"]))
    await store.add_event(event("e1", key="7"))
    await store.add_event(event("old", "sent", received_at="2020-01-01T00:00:00.000000Z"))
    ready = [runs[name].id for name in ("due", "answered", "any", "seven")]
    assert await store.ready_runs(LATER) == ready
    assert await store.ready_runs(LATER, limit=2) == ready[:2]
    await store.claim_run(runs["any"].id, "host_2", None)
    assert await store.ready_runs(LATER) == [ready[0], ready[1], ready[3]], "somebody drives it"


async def test_a_run_goes_on_when_one_that_it_calls_has_ended(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    """Whoever drove that one may have been killed before it could tell."""
    caller, (step,) = await claimed(store, samples, workflow, "a")
    child = samples.run(workflow, parent_run_id=caller.id, parent_step_id="a")
    calling = replace(step, status=StepState.RUNNING, child_run_id=child.id)
    await store.commit(caller.id, caller.epoch, RunChanges((calling,), children=(NewRun(child),)))
    driven = await store.claim_run(child.id, "host_1", None)
    assert driven is not None
    assert await put_to_sleep(store, caller, calling)
    assert await store.ready_runs(LATER) == []
    await store.commit(child.id, driven.epoch, RunChanges(run={"status": RunState.SUCCEEDED}))
    assert await store.ready_runs(LATER) == [caller.id]
    again = await store.claim_run(caller.id, "host_2", None)
    assert again is not None
    assert await store.ready_runs(LATER) == []
    assert not await put_to_sleep(store, again, calling), "it has ended meanwhile"
    ended = replace(calling, status=StepState.SUCCEEDED, outputs={})
    assert await put_to_sleep(store, again, ended)
    assert await store.ready_runs(LATER) == []
