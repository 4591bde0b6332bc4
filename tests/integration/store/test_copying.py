"""Records go from SQLite to PostgreSQL and back, whole or not at all."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from swarm.kernel.errors import ConflictError, DatabaseError, InvalidError
from swarm.kernel.settings import MIB, Settings
from swarm.store import postgres
from swarm.store.postgres.side import postgres_side
from swarm.store.records import (
    AnswerRecord,
    CachedResult,
    EventRecord,
    GrantRecord,
    InvocationRecord,
    NewRun,
    RunAttribute,
    RunChanges,
    RunFilter,
    RunRecord,
    RunState,
    SecretRecord,
    SecretScope,
    StepRecord,
    StepState,
)
from swarm.store.sql.copying import TABLES, TableCopy, copy_records
from swarm.store.sqlite import SqliteStore, open_store
from swarm.store.sqlite.side import sqlite_side
from tests.integration.store.conftest import AGENT, WORKFLOW

TIME = "2026-01-31T12:00:00.000000Z"
TEXT = "π 🐝 'quoted' \"twice\" \\ back\\n \t\r\n \\N \\."


def tell_nothing(table: str, done: int, total: int) -> None:
    """What a test does not look at."""


def copy_to_postgres(database: Path, url: str, settings: Settings) -> list[TableCopy]:
    with sqlite_side(database, settings) as source, postgres_side(url, settings) as target:
        return copy_records(source, target, tell_nothing)


def copy_to_sqlite(url: str, database: Path, settings: Settings) -> list[TableCopy]:
    with postgres_side(url, settings) as source, sqlite_side(database, settings) as target:
        return copy_records(source, target, tell_nothing)


@pytest.fixture
async def filled(store: SqliteStore) -> AsyncIterator[SqliteStore]:
    """A store with something in each table that the product writes."""
    await store.add_agent(AGENT, [GrantRecord("grant_1", AGENT.digest, "network", "a.example")])
    run = RunRecord(
        "run_1",
        WORKFLOW.id,
        WORKFLOW.name,
        WORKFLOW.version,
        inputs={"text": TEXT, "nul": "\0", "n": 1.5, "big": 2**53, "none": None},
        created_at=TIME,
        runs_on=("gpu",),
    )
    steps = tuple(
        StepRecord(f"step_{n}", run.id, name, agent_id=AGENT.id)
        for n, name in enumerate(("z", "a", "m"))
    )
    await store.create_run(NewRun(run, steps, (RunAttribute("label", "team", TEXT),)))
    waiting = StepRecord(
        "step_w", run.id, "w", status=StepState.WAITING, wait_kind="approval", wait_details={"f": 1}
    )
    call = InvocationRecord(
        "inv_1", AGENT.id, "echo", "1.0.0", AGENT.digest, "ok", run.id, "z", layers=("pid",)
    )
    result = CachedResult("key", {"n": [1]}, run.id, "z", TIME, TIME)
    await store.commit(run.id, 0, RunChanges((waiting,), (call,), cached=(result,)))
    await store.answer_wait(AnswerRecord(run.id, "w", -1, {"approved": True}, TIME))
    await store.add_event(EventRecord("evt_1", "paid", "a\0b", {"text": TEXT}, TIME))
    secret = SecretRecord("secret_1", "TOKEN", SecretScope.PROJECT, bytes(range(256)), b"\0\1", "k")
    await store.put_secrets([secret], may_replace=False)
    yield store


async def test_everything_arrives_and_comes_back(
    filled: SqliteStore, database: Path, tmp_path: Path, migrated_url: str, settings: Settings
) -> None:
    there = copy_to_postgres(database, migrated_url, settings)
    assert [one.table for one in there] == list(TABLES)
    assert {one.table for one in there if not one.rows} == {"triggers"}
    other = tmp_path / "other" / "registry.db"
    back = copy_to_sqlite(migrated_url, other, settings)
    assert back == there, "counts and digests are the same"

    async def seen(store: SqliteStore | postgres.PostgresStore) -> list[object]:
        run = RunFilter(attributes=(RunAttribute("label", "team", TEXT),))
        return [
            await store.list_agents(),
            await store.list_grants(AGENT.digest),
            await store.list_workflows(),
            await store.list_runs(run),
            await store.list_steps("run_1"),
            await store.list_invocations("run_1"),
            await store.list_secrets(),
            await store.list_answers("run_1"),
            await store.cached_result("key", "2020"),
            [event.payload for event in await store.find_events("paid", None, "", 9, "default")],
        ]

    expected = await seen(filled)
    for opened in (
        await postgres.open_store(migrated_url, settings),
        await open_store(other, settings),
    ):
        assert await seen(opened) == expected
        assert await opened.check() == []
        (event,) = await opened.find_events("paid", "a\N{SYMBOL FOR NULL}b", "", 9, "default")
        assert event.id == "evt_1", "NUL, which PostgreSQL cannot hold, is told by its sign"
        await opened.close()


async def test_a_target_that_holds_something_is_refused(
    filled: SqliteStore, database: Path, migrated_url: str, settings: Settings
) -> None:
    copy_to_postgres(database, migrated_url, settings)
    with pytest.raises(ConflictError, match="not empty"):
        copy_to_postgres(database, migrated_url, settings)
    with pytest.raises(ConflictError, match="not empty"):
        copy_to_sqlite(migrated_url, database, settings)


@pytest.mark.parametrize("table", ["agents", "step_executions", "step_cache"])
async def test_a_copy_that_is_stopped_leaves_nothing(
    filled: SqliteStore, database: Path, migrated_url: str, settings: Settings, table: str
) -> None:
    def stop(name: str, done: int, total: int) -> None:
        if name == table:
            raise InvalidError("stopped")

    with (
        pytest.raises(InvalidError, match="stopped"),
        sqlite_side(database, settings) as source,
        postgres_side(migrated_url, settings) as target,
    ):
        copy_records(source, target, stop)
    with postgres_side(migrated_url, settings) as target:
        assert {target.count(name) for name in TABLES} == {0}


async def test_what_did_not_arrive_as_it_was_is_not_kept(
    filled: SqliteStore, database: Path, postgres_url: str, settings: Settings
) -> None:
    with postgres_side(postgres_url, settings) as target:
        target._raw.execute(
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.outputs := '{}'; RETURN NEW; END $$"
        )
        target._raw.execute(
            "CREATE TRIGGER spoil BEFORE INSERT ON step_cache FOR EACH ROW EXECUTE FUNCTION spoil()"
        )
    with pytest.raises(DatabaseError, match="step_cache did not arrive as it was"):
        copy_to_postgres(database, postgres_url, settings)
    with postgres_side(postgres_url, settings) as target:
        assert target.count("agents") == 0


async def test_nobody_writes_the_source_meanwhile(
    filled: SqliteStore, database: Path, settings: Settings
) -> None:
    with (
        sqlite_side(database, settings),
        closing(sqlite3.connect(database, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("UPDATE agents SET active = 0")


async def test_a_long_history_goes_over_with_bounded_memory(
    filled: SqliteStore, database: Path, migrated_url: str, settings: Settings, scale: object
) -> None:
    documents = 300
    run = RunRecord("run_2", WORKFLOW.id, WORKFLOW.name, "1.0.0", status=RunState.RUNNING)
    await filled.create_run(NewRun(run))
    large = {"text": "x" * 100_000}
    for number in range(documents):
        step = StepRecord(f"large_{number}", run.id, f"s{number}", outputs=large)
        await filled.commit(run.id, 0, RunChanges((step,)))
    far: list[tuple[str, int, int]] = []
    tracemalloc.start()
    with (
        sqlite_side(database, settings) as source,
        postgres_side(migrated_url, settings) as target,
    ):
        copy_records(source, target, lambda *progress: far.append(progress))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ("step_executions", 200, documents + 4) in far
    assert peak < documents * 100_000 / 1.2, "less than what was copied"
    assert peak < 25 * MIB
