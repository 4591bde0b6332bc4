"""The write-ahead log is made longer ahead of its use, and that changes nothing of what is read."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.settings import Settings
from swarm.store.records import NewRun
from swarm.store.sqlite import SqliteStore, open_store
from swarm.store.sqlite import log_space as module
from swarm.store.sqlite.log_space import ADDED_BYTES, ENOUGH_BYTES
from tests.integration.store.conftest import WORKFLOW


def log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


@pytest.fixture
async def durable(database: Path, settings: Settings) -> AsyncIterator[SqliteStore]:
    """A store whose commits wait for the disk."""
    store = await open_store(database, replace(settings, durability="full"))
    await store.add_workflow(WORKFLOW)
    yield store
    await store.close()


async def write_runs(store: SqliteStore, make_run: Any, first: int, count: int) -> None:
    for number in range(first, first + count):
        run, steps = make_run(f"run_{number:05}", "first")
        await store.create_run(NewRun(run, tuple(steps)))


async def test_commits_seldom_make_the_log_longer(
    durable: SqliteStore, database: Path, make_run: Any
) -> None:
    sizes = []
    for number in range(40):
        await write_runs(durable, make_run, number, 1)
        sizes.append(log_of(database).stat().st_size)
    grown = [after - before for before, after in pairwise(sizes)]
    assert sum(size > 0 for size in grown) <= 10
    assert ADDED_BYTES <= max(grown) < 2 * ADDED_BYTES


async def test_the_log_stays_within_its_bound(
    durable: SqliteStore, database: Path, make_run: Any
) -> None:
    longest = 0
    for first in range(0, 600, 50):
        await write_runs(durable, make_run, first, 50)
        longest = max(longest, log_of(database).stat().st_size)
    assert longest < ENOUGH_BYTES + ADDED_BYTES


async def test_a_copy_of_database_and_log_holds_every_commit(
    durable: SqliteStore, database: Path, tmp_path: Path, make_run: Any
) -> None:
    """As it lies on the disk when the process dies: the log ends in zeros."""
    copied = 0
    for count in (1, 2, 5, 30):
        await write_runs(durable, make_run, copied, count)
        copied += count
        copy = tmp_path / f"copy-{count}.db"
        shutil.copy(database, copy)
        shutil.copy(log_of(database), log_of(copy))
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("SELECT count(*) FROM workflow_runs").fetchone() == (copied,)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert log_of(database).read_bytes().endswith(bytes(4096))


async def test_a_full_disk_is_told_by_the_commit_alone(
    durable: SqliteStore, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "pwrite", is_full)
    await write_runs(durable, make_run, 0, 5)
    assert len(await durable.find_runs("run_")) == 5


async def test_processes_do_not_make_room_in_turn(
    durable: SqliteStore, database: Path, settings: Settings, make_run: Any
) -> None:
    other = await open_store(database, replace(settings, durability="full"))
    before = log_of(database).stat().st_size
    for number, store in enumerate([durable, other] * 10):
        await write_runs(store, make_run, number, 1)
    await other.close()
    assert log_of(database).stat().st_size - before < 3 * ADDED_BYTES
