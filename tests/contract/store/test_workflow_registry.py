"""What every store promises about registered workflows."""

from __future__ import annotations

from typing import Any

from swarm.kernel.ids import new_id
from swarm.store.ports import Store


async def test_a_registered_workflow_comes_back_as_it_was(store: Store, samples: Any) -> None:
    workflow = samples.workflow(
        description="two echoes",
        trigger_config={"a": {"b": [1]}},
        author="somebody",
        tags=("x", "y"),
        created_at="2026-01-31T12:00:00.000000Z",
        updated_at="2026-01-31T12:00:00.000000Z",
    )
    assert await store.add_workflow(workflow) == workflow
    assert await store.get_workflow(workflow.id) == workflow
    assert await store.list_workflows("echo-chain") == [workflow]
    assert await store.get_workflow("wf_none") is None


async def test_digests_replace_each_other_within_a_version(store: Store, samples: Any) -> None:
    first = await store.add_workflow(samples.workflow(digest="sha256:1"))
    again = await store.add_workflow(samples.workflow(digest="sha256:1"))
    assert again.id == first.id
    second = await store.add_workflow(samples.workflow(digest="sha256:2"))
    newer = await store.add_workflow(samples.workflow(digest="sha256:3", version="1.10.0"))
    older = await store.add_workflow(samples.workflow(digest="sha256:4", version="1.9.0"))
    listed = await store.list_workflows()
    assert [item.id for item in listed] == [second.id, older.id, newer.id]
    replaced = await store.get_workflow(first.id)
    assert replaced is not None
    assert not replaced.active


async def test_disabled_stays_disabled_when_registered_again(store: Store, samples: Any) -> None:
    await store.add_workflow(samples.workflow(digest="sha256:1"))
    await store.add_workflow(samples.workflow(digest="sha256:2", version="2.0.0"))
    assert await store.set_workflow_enabled("echo-chain", False) == 2
    assert await store.set_workflow_enabled("unknown", False) == 0

    same = await store.add_workflow(samples.workflow(digest="sha256:1"))
    other_bytes = await store.add_workflow(samples.workflow(digest="sha256:3"))
    new_version = await store.add_workflow(samples.workflow(digest="sha256:4", version="3.0.0"))
    assert [same.enabled, other_bytes.enabled, new_version.enabled] == [False] * 3
    unrelated = await store.add_workflow(samples.workflow(id=new_id("wf"), name="other"))
    assert unrelated.enabled

    assert await store.set_workflow_enabled("echo-chain", True) == 3
    assert all(item.enabled for item in await store.list_workflows())
