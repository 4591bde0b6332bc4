"""What every store promises about registered agents and grants."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import InvalidError
from swarm.kernel.ids import new_id
from swarm.store.ports import Store
from swarm.store.records import GrantRecord


def grant(value: str, digest: str, project_id: str = "default") -> GrantRecord:
    return GrantRecord(new_id("grant"), digest, "network", value, project_id=project_id)


async def test_a_registered_agent_comes_back_as_it_was(store: Store, samples: Any) -> None:
    agent = samples.agent(
        description="says it ‘back’ – ☃",
        capabilities=("text", "test"),
        inputs_schema={"type": "object", "z": 1, "a": [None, 1.5, True]},
        triggers=({"type": "manual"},),
        tags=("x",),
        timeout_seconds=0.5,
        environment_digest="sha256:e",
        created_at="2026-01-31T12:00:00.000000Z",
        updated_at="2026-01-31T12:00:00.000000Z",
    )
    assert await store.add_agent(agent) == agent
    stored = await store.get_agent(agent.id)
    assert stored == agent
    assert list(stored.inputs_schema) == ["type", "z", "a"], "keys keep their order"
    assert await store.list_agents() == [agent]
    assert await store.get_agent("agent_none") is None


async def test_the_same_digest_again_keeps_the_record_and_moves_the_time(
    store: Store, samples: Any
) -> None:
    first = await store.add_agent(samples.agent())
    again = await store.add_agent(samples.agent(description="new words", source="/elsewhere"))
    assert again == replace(first, source="/elsewhere", updated_at=again.updated_at)
    assert again.updated_at > first.updated_at
    assert await store.list_agents() == [again]


async def test_another_digest_makes_the_earlier_record_inactive(store: Store, samples: Any) -> None:
    first = await store.add_agent(samples.agent(digest="sha256:1"))
    second = await store.add_agent(samples.agent(digest="sha256:2"))
    assert second.id != first.id
    assert await store.list_agents("echo") == [second]
    pinned = await store.get_agent(first.id)
    assert pinned is not None
    assert not pinned.active

    back = await store.add_agent(samples.agent(digest="sha256:1"))
    assert back.id == first.id
    assert back.active
    assert [agent.id for agent in await store.list_agents()] == [first.id]


async def test_removing_makes_versions_inactive(store: Store, samples: Any) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        await store.add_agent(samples.agent(id=new_id("agent"), version=version))
    assert await store.remove_agent("echo", "1.1.0") == 1
    assert await store.remove_agent("echo", "1.1.0") == 0
    assert [agent.version for agent in await store.list_agents("echo")] == ["1.0.0", "2.0.0"]
    assert await store.remove_agent("echo") == 2
    assert await store.remove_agent("nobody") == 0
    assert await store.list_agents() == []


async def test_agents_are_listed_by_name_then_semantic_version(store: Store, samples: Any) -> None:
    for name, version in (
        ("b", "1.0.0"),
        ("a", "10.0.0"),
        ("a", "9.0.0"),
        ("a", "10.0.0-rc.10"),
        ("a", "10.0.0-rc.9"),
    ):
        await store.add_agent(samples.agent(id=new_id("agent"), name=name, version=version))
    listed = [(agent.name, agent.version) for agent in await store.list_agents()]
    assert listed == [
        ("a", "9.0.0"),
        ("a", "10.0.0-rc.9"),
        ("a", "10.0.0-rc.10"),
        ("a", "10.0.0"),
        ("b", "1.0.0"),
    ]


async def test_grants_are_added_once_and_kept(store: Store, samples: Any) -> None:
    agent = samples.agent()
    await store.add_agent(
        agent, [grant("b.example", agent.digest), grant("a.example", agent.digest)]
    )
    await store.add_agent(
        agent, [grant("b.example", agent.digest), grant("c.example", agent.digest)]
    )
    await store.add_agent(agent)
    grants = await store.list_grants(agent.digest)
    assert [item.value for item in grants] == ["a.example", "b.example", "c.example"]
    assert all(item.created_at for item in grants)
    assert await store.list_grants("sha256:other") == []


async def test_projects_do_not_see_each_other(store: Store, samples: Any) -> None:
    here = await store.add_agent(samples.agent(), [grant("a.example", samples.agent().digest)])
    there = await store.add_agent(samples.agent(project_id="other"))
    assert await store.list_agents() == [here]
    assert await store.list_agents(project_id="other") == [there]
    assert await store.list_grants(there.digest, "other") == []
    assert await store.remove_agent("echo", project_id="other") == 1
    assert await store.list_agents() == [here]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, 2**70, "\ud800"])
async def test_what_is_not_json_is_refused(store: Store, samples: Any, value: Any) -> None:
    with pytest.raises(InvalidError):
        await store.add_agent(samples.agent(definition={"x": value}))
    assert await store.list_agents() == []
