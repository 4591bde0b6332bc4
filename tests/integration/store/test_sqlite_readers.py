"""Reading what is asked for at once, and what was read before."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import DatabaseError
from swarm.kernel.settings import Settings
from swarm.store.records import NewRun
from swarm.store.sql import kept as kept_module
from swarm.store.sql.journal import FEW_STEPS
from swarm.store.sql.kept import Kept
from swarm.store.sql.rows import WORKFLOWS
from swarm.store.sqlite import SqliteStore, open_store
from swarm.store.sqlite.failures import Failures
from swarm.store.sqlite.readers import Readers
from tests.integration.store.conftest import WORKFLOW


def count(connection: sqlite3.Connection) -> int:
    (found,) = connection.execute("SELECT count(*) FROM numbers").fetchone()
    return int(found)


@pytest.fixture
async def readers(database: Path, settings: Settings) -> AsyncIterator[Readers]:
    """Of a database that others can lock against readers too, since it is not in WAL mode."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE numbers (value)")
    opened = Readers(database, settings, Failures(database, settings.database_timeout_seconds))
    yield opened
    await opened.close()


async def test_the_event_loop_does_not_wait_for_a_lock(readers: Readers, database: Path) -> None:
    assert await readers.look_up(count) == 0
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("INSERT INTO numbers VALUES (1)")
        looking_up = asyncio.ensure_future(readers.look_up(count))
        await asyncio.sleep(0)
        assert not looking_up.done()
        other.execute("COMMIT")
    assert await looking_up == 1


async def test_a_lock_held_longer_than_the_timeout_is_told(
    readers: Readers, database: Path
) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseError, match="locked"):
            await readers.look_up(count)


async def test_a_run_of_many_steps_is_read_whole(store: SqliteStore, make_run: Any) -> None:
    names = [f"s{number}" for number in range(FEW_STEPS + 1)]
    for number, some in enumerate((names, names[:-1])):
        run, steps = make_run(f"run_{number}", *some)
        await store.create_run(NewRun(run, tuple(steps)))
        assert [step.step_id for step in await store.list_steps(run.id)] == some


async def test_a_workflow_changed_by_another_process_is_read_anew(
    store: SqliteStore, database: Path, settings: Settings
) -> None:
    (before,) = await store.list_workflows("echo-chain")
    (again,) = await store.list_workflows("echo-chain")
    assert again is before, "nothing was decoded again"
    other = await open_store(database, settings)
    await other.set_workflow_enabled("echo-chain", False)
    newer = replace(WORKFLOW, id="wf_2", digest="sha256:c", definition={"steps": []})
    (disabled,) = await store.list_workflows("echo-chain")
    assert disabled == replace(before, enabled=False, updated_at=disabled.updated_at)
    await other.add_workflow(newer)
    await other.close()
    (replaced,) = await store.list_workflows("echo-chain")
    assert (replaced.id, replaced.definition) == ("wf_2", {"steps": []})
    assert await store.list_workflows() == [replaced]


async def test_few_records_are_kept(
    store: SqliteStore, plain: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "KEPT_RECORDS", 2)
    for number in range(2, 4):
        await store.add_workflow(replace(WORKFLOW, id=f"wf_{number}", name=f"flow-{number}"))
    keys = plain.execute("SELECT id, updated_at FROM workflows ORDER BY id").fetchall()
    kept = Kept(WORKFLOWS)
    first = kept.get(plain, keys[:1])
    assert len(kept.get(plain, keys)) == len(keys)
    (again,) = kept.get(plain, keys[:1])
    assert again == first[0]
    assert again is not first[0], "it had to go"
