"""What every store promises about creating runs: once per key, with children, within limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.definitions.labels import (
    MAX_LABEL_NAME,
    MAX_LABEL_VALUE,
    MAX_LABELS,
    MAX_SEARCH_INPUTS,
    MAX_SEARCH_VALUE,
)
from swarm.kernel.errors import ConflictError, InvalidError, OwnershipLost
from swarm.store.attributes import input_attributes, label_attributes
from swarm.store.ports import Store
from swarm.store.records import (
    CachedResult,
    NewRun,
    RunAttribute,
    RunChanges,
    RunFilter,
    RunState,
    Usage,
    WorkflowRecord,
)

TIME = "2026-01-31T12:00:00.000000Z"
LATER = "2026-02-01T00:00:00.000000Z"


async def test_a_key_starts_one_run_however_often_it_is_used(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    def new(**fields: Any) -> NewRun:
        run = samples.run(workflow, idempotency_key="order-7", **fields)
        attributes = (RunAttribute("label", "run", run.id),)
        return NewRun(run, tuple(samples.steps(run, "a")), attributes)

    attempts = [new(inputs={"n": number}) for number in range(10)]
    made = await asyncio.gather(*map(store.create_run, attempts))
    assert {run.id for run in made} == {made[0].id}
    first = next(one.run for one in attempts if one.run.id == made[0].id)
    assert made == [first] * 10
    await store.commit(first.id, 0, RunChanges(run={"status": RunState.FAILED}))
    assert await store.create_run(new()) == replace(first, status=RunState.FAILED)
    assert len(await store.list_runs(RunFilter())) == 1
    for one in attempts:
        assert len(await store.list_steps(one.run.id)) == (one.run.id == first.id)

    other = await store.add_workflow(samples.workflow(name="other"))
    for different in (
        samples.run(other, idempotency_key="order-7"),
        samples.run(workflow, idempotency_key="order-8"),
        samples.run(workflow, idempotency_key="order-7", project_id="else"),
    ):
        assert await store.create_run(NewRun(different)) == different


async def test_a_run_without_a_time_is_created_now(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = await store.create_run(NewRun(samples.run(workflow, created_at="")))
    assert run.created_at
    assert await store.get_run(run.id) == run
    with pytest.raises(ConflictError):
        await store.create_run(NewRun(run))


async def test_a_commit_creates_children_keeps_results_and_adds_up_use(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    root = samples.run(workflow)
    await store.create_run(NewRun(root))
    child = samples.run(workflow, parent_run_id=root.id, root_run_id=root.id, depth=1)
    children = (NewRun(child, tuple(samples.steps(child, "a")), label_attributes({"x": "y"})),)
    result = CachedResult("key", {"n": 1}, root.id, "s", TIME, LATER)
    changes = RunChanges(
        cached=(result,),
        children=children,
        tree_usage=(root.id, Usage(vm_time_ms=5, tokens=7, cost_micros=11)),
    )
    with pytest.raises(OwnershipLost):
        await store.commit(root.id, 1, changes)
    assert await store.get_run(child.id) is None
    assert await store.cached_result("key", TIME) is None

    await store.commit(root.id, 0, changes)
    assert await store.get_run(child.id) == child
    assert await store.list_steps(child.id) == list(children[0].steps)
    started = RunChanges(run={"status": RunState.RUNNING})
    await store.commit(child.id, 0, started)
    await store.commit(root.id, 0, changes)
    assert await store.get_run(child.id) == replace(child, status=RunState.RUNNING)
    used = await store.get_run(root.id)
    assert used is not None
    assert (used.tree_vm_time_ms, used.tree_api_tokens, used.tree_cost_micros) == (10, 14, 22)

    assert [run.id for run in await store.list_runs(RunFilter(parent_run_id=root.id))] == [child.id]
    assert [run.id for run in await store.list_runs(RunFilter(called=False))] == [root.id]
    assert len(await store.list_runs(RunFilter())) == 2


async def test_a_cached_result_stands_until_it_expires_or_is_replaced(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow)
    await store.create_run(NewRun(run))
    first = CachedResult("key", {"n": 1}, run.id, "s", TIME, LATER)
    await store.commit(run.id, 0, RunChanges(cached=(first,)))
    assert await store.cached_result("key", TIME) == first
    assert await store.cached_result("key", LATER) is None
    assert await store.cached_result("other", TIME) is None
    second = replace(first, outputs={"n": 2}, expires_at="2027-01-01T00:00:00.000000Z")
    await store.commit(run.id, 0, RunChanges(cached=(second,)))
    assert await store.cached_result("key", LATER) == second


async def test_what_runs_are_found_by_is_bounded(
    store: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    run = samples.run(workflow)
    text = "x" * 2 * MAX_SEARCH_VALUE
    inputs = {"text": text, "n": 1.5, "flag": True, "none": None, "hidden": "h"}
    attributes = input_attributes(("text", "n", "flag", "none", "absent"), inputs)
    assert [(one.name, one.value) for one in attributes] == [
        ("text", "x" * MAX_SEARCH_VALUE),
        ("n", "1.5"),
        ("flag", "true"),
    ]
    await store.create_run(NewRun(run, (), attributes))
    for value, count in ((text, 1), (text + "y", 1), ("x" * (MAX_SEARCH_VALUE - 1), 0)):
        wanted = RunFilter(attributes=(RunAttribute("input", "text", value),))
        assert len(await store.list_runs(wanted)) == count

    names = {str(n): "" for n in range(MAX_LABELS + 1)}
    long_name, long_value = "l" * (MAX_LABEL_NAME + 1), "v" * (MAX_LABEL_VALUE + 1)
    for labels in (names, {long_name: ""}, {"": ""}, {"a": long_value}):
        with pytest.raises(InvalidError):
            label_attributes(labels)
        raw = tuple(RunAttribute("label", name, value) for name, value in labels.items())
        with pytest.raises(InvalidError):
            await store.create_run(NewRun(samples.run(workflow), (), raw))
    searched = [str(n) for n in range(MAX_SEARCH_INPUTS + 1)]
    with pytest.raises(InvalidError):
        input_attributes(searched, dict.fromkeys(searched, 1))
