"""Sealed secrets: unique by scope and name, put together or not at all, rewrapped by comparison."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import ConflictError
from swarm.kernel.ids import new_id
from swarm.store.ports import Store
from swarm.store.records import SecretIdentity, SecretRecord, SecretScope, WorkflowRecord
from tests.contract.store.conftest import OpenStore


def secret(name: str = "TOKEN", **fields: Any) -> SecretRecord:
    base = SecretRecord(
        id=new_id("sec"),
        name=name,
        scope=SecretScope.PROJECT,
        encrypted_value=b"\x00value\xff",
        wrapped_key=b"\x00key\xff",
        key_id="mk_1",
    )
    return replace(base, **fields)


def of_workflow(name: str, **fields: Any) -> SecretRecord:
    return secret(scope=SecretScope.WORKFLOW, workflow_name=name, **fields)


def of_organization(**fields: Any) -> SecretRecord:
    return secret(scope=SecretScope.ORGANIZATION, **{"organization_id": "default", **fields})


async def test_a_secret_is_kept_as_it_was_given(store: Store) -> None:
    given = secret()
    await store.put_secrets([given], may_replace=False)
    found = await store.get_secret(SecretIdentity("TOKEN"))
    assert found is not None
    assert found.created_at == found.updated_at != ""
    assert replace(found, created_at="", updated_at="") == given
    assert await store.get_secret(SecretIdentity("TOKEN", "flow")) is None
    assert await store.get_secret(SecretIdentity("TOKEN", project_id="other")) is None
    assert await store.get_secret(SecretIdentity.of_organization("TOKEN")) is None


async def test_one_name_may_stand_in_each_scope(store: Store, workflow: WorkflowRecord) -> None:
    records = [
        secret(),
        of_workflow(workflow.name, workflow_id=workflow.id),
        of_workflow("another"),
        secret(project_id="other"),
        of_organization(),
        of_organization(organization_id="other"),
    ]
    await store.put_secrets(records, may_replace=False)
    assert [(one.scope, one.workflow_name) for one in await store.list_secrets()] == [
        ("organization", None),
        ("project", None),
        ("workflow", "another"),
        ("workflow", workflow.name),
    ]
    assert [one.scope for one in await store.list_secrets("other")] == ["organization", "project"]
    assert len(await store.list_secrets("other", "none")) == 1
    for one in records:
        found = await store.get_secret(one.identity)
        assert found is not None
        assert (found.id, found.workflow_id) == (one.id, one.workflow_id)
    with pytest.raises(ConflictError, match="TOKEN of the organization"):
        await store.put_secrets([of_organization(project_id="other")], may_replace=False)


async def test_a_replaced_secret_keeps_when_it_was_first_set(store: Store) -> None:
    await store.put_secrets([secret(created_at="2026-01-01")], may_replace=True)
    await store.put_secrets([secret(encrypted_value=b"new", key_id="mk_2")], may_replace=True)
    (found,) = await store.list_secrets()
    assert (found.created_at, found.encrypted_value, found.key_id) == ("2026-01-01", b"new", "mk_2")
    assert found.updated_at > "2026-01-01"


async def test_all_are_put_or_none(store: Store) -> None:
    await store.put_secrets([secret("OLD")], may_replace=False)
    with pytest.raises(ConflictError, match="OLD"):
        await store.put_secrets([secret("NEW"), secret("OLD")], may_replace=False)
    assert [one.name for one in await store.list_secrets()] == ["OLD"]


async def test_only_the_secret_meant_is_deleted(store: Store) -> None:
    await store.put_secrets([secret(), of_workflow("flow"), secret("X")], may_replace=False)
    assert await store.delete_secret(SecretIdentity("TOKEN", "flow"))
    assert not await store.delete_secret(SecretIdentity("TOKEN", "flow"))
    assert [(one.name, one.workflow_name) for one in await store.list_secrets()] == [
        ("TOKEN", None),
        ("X", None),
    ]


async def test_secrets_under_other_keys_come_in_pages(store: Store) -> None:
    records = [secret(f"S{number}", key_id=f"mk_{number % 2}") for number in range(10)]
    await store.put_secrets(records, may_replace=False)
    await store.put_secrets([secret(project_id="other", key_id="mk_0")], may_replace=False)
    assert await store.count_secrets_by_key() == {"mk_0": 6, "mk_1": 5}
    first = await store.secrets_not_under("mk_1", limit=4)
    rest = await store.secrets_not_under("mk_1", first[-1].id, limit=4)
    assert [one.name for one in first + rest] == ["S0", "S2", "S4", "S6", "S8", "TOKEN"]


async def test_a_secret_that_was_set_meanwhile_is_not_rewrapped(
    store: Store, open_another: OpenStore
) -> None:
    await store.put_secrets([secret("SET"), secret("LEFT")], may_replace=False)
    read = await store.secrets_not_under("mk_2")
    other = await open_another()
    newer = secret("SET", wrapped_key=b"newer", key_id="mk_2", encrypted_value=b"newer")
    await other.put_secrets([newer], may_replace=True)
    changes = [(one, replace(one, wrapped_key=b"moved", key_id="mk_3")) for one in read]
    assert await store.rewrap_secrets(changes) == 1
    found = {one.name: (one.wrapped_key, one.key_id) for one in await store.list_secrets()}
    assert found == {"LEFT": (b"moved", "mk_3"), "SET": (b"newer", "mk_2")}
