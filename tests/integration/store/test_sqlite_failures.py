"""What goes wrong with a database file: one clear error each, and nothing half-written."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import DatabaseError, InvalidError
from swarm.kernel.settings import Settings
from swarm.store.records import NewRun, RunChanges, RunState, StepState
from swarm.store.sqlite import SqliteStore, open_store
from swarm.store.sqlite import writer as writer_module

NOBODY = 65534
FILL_PROGRAM = Path(__file__).with_name("fill_process.py")


async def fails_to_open(database: Path, settings: Settings, words: str) -> DatabaseError:
    with pytest.raises(DatabaseError, match=words) as caught:
        await open_store(database, settings)
    assert caught.value.where
    assert caught.value.remedy
    return caught.value


async def test_a_lock_held_longer_than_the_timeout(
    store: SqliteStore, plain: sqlite3.Connection, make_run: Any
) -> None:
    run, steps = make_run("run_1", "first")
    plain.execute("BEGIN IMMEDIATE")
    results = await asyncio.gather(
        store.create_run(NewRun(run, tuple(steps))),
        store.set_workflow_enabled("echo-chain", False),
        return_exceptions=True,
    )
    for result in results:
        assert isinstance(result, DatabaseError)
        assert "locked" in result.message
        assert "SWARM_DATABASE_TIMEOUT_SECONDS" in str(result.remedy)
    assert await store.list_workflows(), "reading goes on"
    plain.execute("COMMIT")
    await store.create_run(NewRun(run, tuple(steps)))


async def test_a_lock_held_for_a_moment_is_waited_for(
    store: SqliteStore, plain: sqlite3.Connection, make_run: Any
) -> None:
    plain.execute("BEGIN IMMEDIATE")
    creating = asyncio.ensure_future(store.create_run(NewRun(*make_run("run_1", "first"))))
    await store.list_workflows()
    plain.execute("COMMIT")
    await creating


async def test_a_database_locked_against_readers_too(database: Path, settings: Settings) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("CREATE TABLE schema_migrations (version)")
        other.execute("BEGIN EXCLUSIVE")
        await fails_to_open(database, settings, "locked")


@pytest.mark.parametrize("content", [b"this is not a database, but long enough" * 99, b"\0" * 5000])
async def test_a_file_that_is_no_database(
    database: Path, settings: Settings, content: bytes
) -> None:
    database.write_bytes(content)
    await fails_to_open(database, settings, "damaged or no SQLite database")
    assert database.read_bytes() == content


async def test_a_truncated_database(store: SqliteStore, database: Path, settings: Settings) -> None:
    await store.close()
    database.write_bytes(database.read_bytes()[: 3 * 4096])
    with pytest.raises(DatabaseError, match="damaged"):
        store = await open_store(database, settings)
        try:
            await store.list_agents()
        finally:
            await store.close()


async def test_a_database_of_another_program(database: Path, settings: Settings) -> None:
    with closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE recipes (name)")
    before = database.read_bytes()
    await fails_to_open(database, settings, "not one of Swarm's")
    assert database.read_bytes() == before


async def test_a_database_that_lost_a_table(
    store: SqliteStore, plain: sqlite3.Connection, make_run: Any
) -> None:
    plain.execute("DROP TABLE step_executions")
    with pytest.raises(DatabaseError, match="tables that this Swarm expects"):
        await store.create_run(NewRun(*make_run("run_1", "first")))
    assert await store.get_run("run_1") is None


async def test_a_row_changed_by_hand_into_nonsense(
    store: SqliteStore, plain: sqlite3.Connection, make_run: Any
) -> None:
    await store.create_run(NewRun(*make_run("run_1")))
    await store.create_run(NewRun(*make_run("run_2")))
    plain.execute("UPDATE workflow_runs SET status = 'bogus' WHERE id = 'run_1'")
    with pytest.raises(DatabaseError, match="run_1, column status"):
        await store.get_run("run_1")
    with pytest.raises(DatabaseError, match="run_1, column status"):
        await store.claim_run("run_1", "host_1", None)
    plain.execute("UPDATE workflow_runs SET status = 'pending' WHERE id = 'run_1'")
    run = await store.get_run("run_1")
    assert run is not None
    assert (run.owner, run.epoch) == (None, 0), "what could not be returned was not done"
    assert await store.claim_run("run_2", "host_1", None), "the writer goes on"


async def test_a_folder_in_the_databases_place(database: Path, settings: Settings) -> None:
    database.mkdir()
    await fails_to_open(database, settings, "cannot be opened")
    (database.parent / "file").touch()
    await fails_to_open(database.parent / "file" / "registry.db", settings, "folder cannot be")


@pytest.fixture
def ordinary_folder(settings: Settings) -> Iterator[Path]:
    """A folder of an ordinary user, and this process as that user: nothing binds root.

    After ``settings``, whose folder only root could make.
    """
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    own = os.geteuid()
    if own == 0:
        os.chown(folder, NOBODY, -1)
        os.seteuid(NOBODY)
    yield folder
    os.seteuid(own)
    folder.chmod(0o700)
    shutil.rmtree(folder)


async def test_a_file_or_folder_that_may_not_be_written(
    ordinary_folder: Path, settings: Settings
) -> None:
    database = ordinary_folder / "registry.db"
    store = await open_store(database, settings)
    await store.close()
    database.chmod(0o444)
    error = await fails_to_open(database, settings, "read-only")
    assert error.where == str(database)
    database.chmod(0o644)
    ordinary_folder.chmod(0o555)
    error = await fails_to_open(database, settings, "read-only")
    assert error.where == str(ordinary_folder)
    await fails_to_open(ordinary_folder / "new.db", settings, "read-only")
    assert sorted(path.name for path in ordinary_folder.iterdir()) == [
        "registry.db",
        "registry.db.turn",
    ]


async def test_a_full_database_fails_what_does_not_fit_and_nothing_else(
    store: SqliteStore, plain: sqlite3.Connection, make_run: Any
) -> None:
    """In one batch: the operation that is too large fails, the small ones are done."""
    run, (large, *small) = make_run("run_1", "large", *(f"small{n}" for n in range(20)))
    await store.create_run(NewRun(run, (large, *small)))
    (pages,) = plain.execute("PRAGMA page_count").fetchone()
    await store._writer.submit(
        lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 10}").fetchone()
    )
    results = await asyncio.gather(
        *(
            store.commit("run_1", 0, RunChanges((replace(step, status=StepState.SUCCEEDED),)))
            for step in small[:10]
        ),
        store.commit(
            "run_1",
            0,
            RunChanges(
                (replace(large, status=StepState.SUCCEEDED, outputs={"text": "x" * 100_000}),),
                run={"status": RunState.RUNNING},
            ),
        ),
        *(
            store.commit("run_1", 0, RunChanges((replace(step, status=StepState.SUCCEEDED),)))
            for step in small[10:]
        ),
        return_exceptions=True,
    )
    failure = results.pop(10)
    assert isinstance(failure, DatabaseError)
    assert "full" in failure.message
    assert results == [None] * 20
    stored = {step.step_id: step.status for step in await store.list_steps("run_1")}
    assert stored.pop("large") == "pending"
    assert set(stored.values()) == {"succeeded"}
    stored_run = await store.get_run("run_1")
    assert stored_run is not None
    assert stored_run.status == "pending"


def private_mounts() -> list[str] | None:
    """How to start a program that may mount, or None where this is not allowed."""
    for command in (["unshare", "-m"], ["unshare", "-r", "-m"]):
        try:
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
        except FileNotFoundError:
            return None
    return None


@pytest.mark.skipif(private_mounts() is None, reason="needs a private mount namespace")
def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """On a file system of 2 MiB of its own; the program tells what it found."""
    unshare = private_mounts()
    assert unshare is not None
    mount = f"mount -t tmpfs -o size=2m swarm-test {tmp_path}"
    program = f"{mount} && exec {sys.executable} {FILL_PROGRAM} {tmp_path}"
    done = subprocess.run(
        [*unshare, "sh", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok"), done.stdout


async def test_what_sqlite_cannot_hold_is_refused(store: SqliteStore, make_run: Any) -> None:
    run, steps = make_run("run_1", "first")
    for bad in (replace(run, error="\ud800"), replace(run, epoch=2**63), replace(run, id="\ud800")):
        with pytest.raises(InvalidError, match="cannot be stored"):
            await store.create_run(NewRun(bad, tuple(steps)))
    with pytest.raises(InvalidError, match="cannot be stored"):
        await store.get_run("\ud800")
    await store.create_run(NewRun(run, tuple(steps)))


async def test_after_closing_every_call_says_so(store: SqliteStore, make_run: Any) -> None:
    pending = asyncio.ensure_future(store.create_run(NewRun(*make_run("run_1", "first"))))
    await asyncio.sleep(0)
    await store.close()
    await pending
    await store.close()
    for call in (store.get_run("run_1"), store.create_run(NewRun(*make_run("run_2")))):
        with pytest.raises(DatabaseError, match="closed"):
            await call


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("rows", [None, 1])
async def test_a_writer_that_breaks_leaves_nobody_waiting(
    store: SqliteStore, rows: int | None
) -> None:
    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE workflows SET enabled = 0")
        raise KeyError("a bug")

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    results = await asyncio.gather(
        store._writer.submit(broken, rows),
        *(store._writer.submit(lambda connection: None, rows) for _ in range(10)),
        return_exceptions=True,
    )
    assert all(isinstance(result, DatabaseError) for result in results)
    with pytest.raises(DatabaseError, match="closed"):
        await store.set_workflow_enabled("echo-chain", True)
    (workflow,) = await store.list_workflows()
    assert workflow.enabled


async def test_callers_beyond_the_queues_limit_wait_their_turn(
    database: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, make_run: Any
) -> None:
    monkeypatch.setattr(writer_module, "MAX_QUEUED_OPERATIONS", 3)
    monkeypatch.setattr(writer_module, "MAX_BATCH_OPERATIONS", 2)
    store = await open_store(database, settings)
    longest = 0

    async def submit() -> None:
        nonlocal longest
        await store.remove_agent("nobody")
        longest = max(longest, len(store._writer._waiting))

    await asyncio.gather(*(submit() for _ in range(50)))
    assert longest <= 3
    await store.close()


async def test_a_cancelled_caller_does_not_disturb_others(
    store: SqliteStore, plain: sqlite3.Connection, make_run: Any
) -> None:
    plain.execute("BEGIN IMMEDIATE")
    first = asyncio.ensure_future(store.create_run(NewRun(*make_run("run_1"))))
    second = asyncio.ensure_future(store.create_run(NewRun(*make_run("run_2"))))
    await asyncio.sleep(0)
    first.cancel()
    plain.execute("COMMIT")
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await store.get_run("run_2")
