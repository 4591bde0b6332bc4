"""Copies of the database that are made while it is written."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from swarm.kernel.errors import ConflictError, DatabaseError
from swarm.kernel.settings import Settings
from swarm.store.records import NewRun, RunChanges, RunFilter, StepRecord, StepState
from swarm.store.sqlite import SqliteStore, backup, open_store

STEPS = 300
PATIENCE_SECONDS = 30


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "copy.db"


async def write_until(
    store: SqliteStore, run_id: str, much: asyncio.Event, done: asyncio.Event
) -> int:
    """Commit steps one after the other, each with the count of all; return the count."""
    number = 0
    while not done.is_set():
        number += 1
        step = StepRecord(
            f"step_{number}", run_id, f"s{number}", status=StepState.SUCCEEDED,
            outputs={"text": "x" * 2000},
        )  # fmt: skip
        await store.commit(run_id, 0, RunChanges((step,), run={"total_api_tokens": number}))
        if number == STEPS:
            much.set()
    return number


async def test_a_copy_holds_what_was_committed_when_it_began(
    store: SqliteStore, settings: Settings, make_run: Any, target: Path
) -> None:
    await store.create_run(NewRun(*make_run("run_1")))
    much, done = asyncio.Event(), asyncio.Event()
    writing = asyncio.ensure_future(write_until(store, "run_1", much, done))
    await much.wait()
    before = await store.get_run("run_1")
    assert before is not None
    size = await store.back_up(target)
    after = await store.get_run("run_1")
    assert after is not None
    done.set()
    total = await writing
    assert before.total_api_tokens >= STEPS
    assert after.total_api_tokens > before.total_api_tokens, "writing went on meanwhile"

    assert [path.name for path in target.parent.iterdir()] == ["copy.db"]
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.stat().st_size == size
    copy = await open_store(target, settings)
    run = await copy.get_run("run_1")
    assert run is not None
    assert before.total_api_tokens <= run.total_api_tokens <= total
    assert len(await copy.list_steps("run_1")) == run.total_api_tokens, "each commit whole"
    assert len(await copy.list_agents()) == 1
    await copy.close()


async def test_a_file_is_replaced_only_when_told(
    store: SqliteStore, settings: Settings, target: Path, database: Path
) -> None:
    target.write_text("precious")
    with pytest.raises(ConflictError, match="already"):
        await store.back_up(target)
    assert target.read_text() == "precious"
    await store.back_up(target, replace=True)
    copy = await open_store(target, settings)
    assert len(await copy.list_agents()) == 1
    await copy.close()

    for own in (database, database.with_name("registry.db-wal")):
        with pytest.raises(ConflictError, match="the database itself"):
            await store.back_up(own, replace=True)
    link = target.with_name("link.db")
    link.symlink_to(database)
    with pytest.raises(ConflictError, match="the database itself"):
        await store.back_up(link, replace=True)
    assert len(await store.list_agents()) == 1


async def test_a_file_that_came_meanwhile_is_kept(
    store: SqliteStore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = backup._sync

    def and_somebody_comes(path: Path) -> None:
        sync(path)
        target.write_text("theirs")

    monkeypatch.setattr(backup, "_sync", and_somebody_comes)
    with pytest.raises(ConflictError, match="already"):
        await store.back_up(target)
    assert target.read_text() == "theirs"
    assert list(target.parent.iterdir()) == [target]


async def test_a_damaged_database_gives_no_copy(
    store: SqliteStore, make_run: Any, database: Path, target: Path
) -> None:
    for number in range(40):
        await store.create_run(NewRun(*make_run(f"run_{number}", "a", "b", "c")))
    await store.close()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'idx_steps_run'"
        ).fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * 4096 + 2000)
        file.write(os.urandom(2000))
    damaged = await open_store(database, Settings(home=database.parent))
    with pytest.raises(DatabaseError, match="damaged"):
        await damaged.back_up(target)
    await damaged.close()
    assert list(target.parent.iterdir()) == []


async def test_what_cannot_be_written_is_told(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="No such file or directory") as caught:
        await store.back_up(tmp_path / "nowhere" / "copy.db")
    assert "nowhere" in str(caught.value.where)
    with pytest.raises(ConflictError, match="already"):
        await store.back_up(tmp_path)
    with pytest.raises(DatabaseError):
        await store.back_up(tmp_path, replace=True)


async def test_a_cancelled_backup_leaves_nothing(
    store: SqliteStore, make_run: Any, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, cancelled = threading.Event(), threading.Event()
    create = backup.create_private

    def create_and_wait(path: Path) -> None:
        create(path)
        begun.set()
        assert cancelled.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(backup, "STEP_PAGES", 1)
    monkeypatch.setattr(backup, "create_private", create_and_wait)
    await store.create_run(NewRun(*make_run("run_1", *(f"s{number}" for number in range(3000)))))
    copying = asyncio.ensure_future(store.back_up(target))
    assert await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
    copying.cancel()
    asyncio.get_running_loop().call_soon(cancelled.set)
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert list(target.parent.iterdir()) == []
    assert await store.list_runs(RunFilter())
