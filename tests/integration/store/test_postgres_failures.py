"""The server goes away, or the connection to it: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from swarm.kernel.errors import DatabaseError, OwnershipLost
from swarm.kernel.settings import Settings
from swarm.store.postgres import PostgresStore, batches, open_store
from swarm.store.postgres.connection import connect, connect_patiently
from swarm.store.records import (
    NewRun,
    RunChanges,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
    Usage,
)
from swarm.store.sql.connection import Connection
from tests.integration.store.conftest import AGENT, WORKFLOW
from tests.postgres.cutter import Cut, cutting
from tests.postgres.server import PostgresServer

CHAINS = 4
ONE_TOKEN = Usage(tokens=1)


def patient(settings: Settings, seconds: float = 30.0) -> Settings:
    return replace(
        settings,
        durability="full",
        database_timeout_seconds=10.0,
        database_reconnect_seconds=seconds,
    )


async def make_runs(store: PostgresStore) -> list[RunRecord]:
    await store.add_agent(AGENT)
    await store.add_workflow(WORKFLOW)
    runs = [
        RunRecord(f"run_{n}", WORKFLOW.id, WORKFLOW.name, "1.0.0", status=RunState.RUNNING)
        for n in range(CHAINS)
    ]
    for run in runs:
        await store.create_run(NewRun(run))
    return runs


class Chains:
    """Commits one step after the other, on several runs at once, and counts what is acknowledged.

    Each commit adds one to what the run has used: to apply one twice would tell.
    """

    def __init__(self, store: PostgresStore, runs: list[RunRecord]) -> None:
        self._store = store
        self._stopped = False
        self.done = dict.fromkeys((run.id for run in runs), 0)
        self._tasks = [asyncio.create_task(self._drive(run)) for run in runs]

    async def _drive(self, run: RunRecord) -> None:
        while not self._stopped:
            number = self.done[run.id]
            step = StepRecord(f"{run.id}_{number}", run.id, f"s{number}", status=StepState.RUNNING)
            await self._store.commit(run.id, 0, RunChanges((step,), tree_usage=(run.id, ONE_TOKEN)))
            self.done[run.id] += 1
            assert await self._store.get_run(run.id) is not None, "readers are as patient"

    async def advance(self, count: int = 5) -> None:
        """Wait until every chain has come ``count`` further."""
        wanted = {run_id: done + count for run_id, done in self.done.items()}
        while any(self.done[run_id] < goal for run_id, goal in wanted.items()):
            ended = [task for task in self._tasks if task.done()]
            assert not ended, ended[0].exception()
            await asyncio.wait(self._tasks, timeout=0.01)

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def check(self) -> None:
        """What is recorded is what was acknowledged, once each."""
        for run_id, done in self.done.items():
            run = await self._store.get_run(run_id)
            assert run is not None
            assert run.tree_api_tokens == done
            assert len(await self._store.list_steps(run_id)) == done


@pytest.mark.parametrize("how", ["restart", "kill", "connections"])
async def test_work_goes_on_when_the_server_comes_back(
    durable_postgres: PostgresServer, settings: Settings, how: str, scale: Any
) -> None:
    url = durable_postgres.url(durable_postgres.create_database())
    store = await open_store(url, patient(settings))
    chains = Chains(store, await make_runs(store))
    for _ in range(scale(small=2, full=20)):
        await chains.advance()
        if how == "restart":
            await asyncio.to_thread(durable_postgres.restart)
        elif how == "kill":
            durable_postgres.kill()
            await asyncio.to_thread(durable_postgres.start)
        else:
            with closing(psycopg.connect(url, autocommit=True)) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
    await chains.advance()
    await chains.stop()
    await chains.check()
    assert await store.check() == []
    await store.close()


async def test_statements_that_the_server_has_not_prepared_are_sent_anew(
    migrated_url: str, settings: Settings
) -> None:
    """As where their preparation was skipped in a pipeline that had failed before it."""
    store = await open_store(migrated_url, replace(patient(settings), database_writers=1))
    chains = Chains(store, await make_runs(store))
    await chains.advance()

    def forget(connection: Connection) -> None:
        connection.execute("DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$")

    for _ in range(3):
        await store._writer.submit(forget)
        await chains.advance()
    await chains.stop()
    await chains.check()
    await store.close()


async def test_who_lost_its_claim_in_a_crash_cannot_write_with_its_successors_epoch(
    durable_postgres: PostgresServer, settings: Settings
) -> None:
    """Claims of runs from the queue do not wait for the disk."""
    url = durable_postgres.url(durable_postgres.create_database())
    store = await open_store(url, patient(settings))
    waiting = [run.id for run in await make_runs(store)]
    lost = None
    while lost is None:  # the server may have written the claim by itself
        first = await store.take_runs([waiting[-1]], "host_1")
        durable_postgres.kill()
        await asyncio.to_thread(durable_postgres.start)
        assert [each.run.epoch for each in first] == [1]
        found = await store.get_run(waiting.pop())
        assert found is not None
        lost = found if found.owner is None else None
    (second,) = await store.take_runs([lost.id], "host_2")
    assert second.run.epoch == 1
    used = RunChanges(tree_usage=(lost.id, ONE_TOKEN))
    with pytest.raises(OwnershipLost):
        await store.commit(lost.id, 1, used, owner="host_1")
    await store.commit(lost.id, 1, used, owner="host_2")
    await store.close()


@pytest.mark.parametrize("where", [Cut.BEFORE, Cut.AFTER, Cut.ENDED])
async def test_a_commit_in_doubt_is_done_once(
    postgres: PostgresServer, migrated_url: str, settings: Settings, where: Cut, scale: Any
) -> None:
    async with cutting("127.0.0.1", postgres.port) as (cutter, port):
        url = migrated_url.replace(f":{postgres.port}/", f":{port}/")
        store = await open_store(url, patient(settings))
        chains = Chains(store, await make_runs(store))
        count = scale(small=5, full=100)
        for number in range(count):
            await chains.advance(2)
            cutter.cut = where
            while cutter.cuts <= number:
                await chains.advance(1)
        await chains.advance()
        await chains.stop()
        await chains.check()
        assert cutter.cuts == count
        await store.close()


async def test_a_server_that_stays_away_is_told(
    durable_postgres: PostgresServer, settings: Settings
) -> None:
    url = durable_postgres.url(durable_postgres.create_database())
    store = await open_store(url, patient(settings, seconds=0.2))
    (run, *_) = await make_runs(store)
    durable_postgres.stop()
    for _ in range(2):
        with pytest.raises(DatabaseError) as failed:
            await store.commit(run.id, 0, RunChanges(run={"current_step": "x"}))
        assert "cannot be reached" in failed.value.message
        with pytest.raises(DatabaseError):
            await store.get_run(run.id)
    with pytest.raises(DatabaseError):
        await open_store(url, patient(settings, seconds=0.2))
    await asyncio.to_thread(durable_postgres.start)
    await store.commit(run.id, 0, RunChanges(run={"current_step": "y"}))
    found = await store.get_run(run.id)
    assert found is not None
    assert found.current_step == "y", "what was refused was not done"
    await store.close()


class Pausing:
    """A companion that stops its process's writer within a transaction, as SIGSTOP would."""

    def __init__(self) -> None:
        self.paused = threading.Event()
        self.goes_on = threading.Event()

    def created(self, connection: Connection, runs: Sequence[RunRecord]) -> None:
        if runs[0].parent_run_id is not None and not self.paused.is_set():
            connection.execute("SELECT 1").fetchone()  # all that was sent has been executed
            self.paused.set()
            assert self.goes_on.wait(60)

    def awakened(self, connection: Connection, run_ids: Sequence[str]) -> None:
        """Not looked at."""

    def released(self, connection: Connection, run_id: str, run: Mapping[str, Any]) -> None:
        """Not looked at."""


async def test_who_stops_within_a_transaction_loses_its_locks_and_then_the_run(
    migrated_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PAUSED_SECONDS", 0.5)
    pausing = Pausing()
    paused = await open_store(migrated_url, patient(settings), companions=[pausing])
    other = await open_store(migrated_url, patient(settings))
    (run, *_) = await make_runs(paused)
    mine = await paused.claim_run(run.id, "host_1", None)
    assert mine is not None
    child = RunRecord("run_child", WORKFLOW.id, WORKFLOW.name, "1.0.0", parent_run_id=run.id)
    changes = RunChanges(run={"current_step": "late"}, children=(NewRun(child),))
    late = asyncio.create_task(paused.commit(run.id, mine.epoch, changes))
    assert await asyncio.to_thread(pausing.paused.wait, 60)
    taken = await other.claim_run(run.id, "host_2", "host_1")
    assert taken is not None
    assert not late.done()
    pausing.goes_on.set()
    with pytest.raises(OwnershipLost):
        await late
    assert await other.get_run(run.id) == taken
    assert await other.get_run(child.id) is None
    await paused.close()
    await other.close()


async def test_a_lock_that_is_held_harms_only_what_needs_it(
    migrated_url: str, settings: Settings
) -> None:
    impatient = replace(patient(settings), database_timeout_seconds=0.3)
    store = await open_store(migrated_url, impatient)
    runs = await make_runs(store)
    with closing(psycopg.connect(migrated_url)) as other:
        other.execute("SELECT 1 FROM workflow_runs WHERE id = %s FOR UPDATE", [runs[0].id])
        results = await asyncio.gather(
            *(store.commit(run.id, 0, RunChanges(run={"current_step": "x"})) for run in runs),
            return_exceptions=True,
        )
    assert isinstance(results[0], DatabaseError)
    assert "locked" in results[0].message
    assert results[1:] == [None] * (len(runs) - 1)
    await store.close()


async def test_no_connection_left_is_waited_for(
    postgres: PostgresServer, migrated_url: str, settings: Settings
) -> None:
    """The user may have one connection, and another program holds it for a while."""
    store = await open_store(migrated_url, patient(settings))
    (run, *_) = await make_runs(store)
    await store.close()
    name = migrated_url.rpartition("/")[2]
    postgres.execute(
        "CREATE ROLE guest LOGIN PASSWORD 'guest' CONNECTION LIMIT 1; "
        "GRANT ALL ON SCHEMA public TO guest; GRANT ALL ON ALL TABLES IN SCHEMA public TO guest; "
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO guest",
        name,
    )
    guest = f"postgresql://guest:guest@127.0.0.1:{postgres.port}/{name}"
    try:
        one = replace(patient(settings), database_writers=1, database_readers=1)
        store = await open_store(guest, one)
        # The server may take a moment to notice that the last one is gone.
        with closing(connect_patiently(lambda: connect(guest, one, writes=False), 10.0)):
            waiting = asyncio.create_task(
                store.commit(run.id, 0, RunChanges(run={"current_step": "z"}))
            )
            await asyncio.wait([waiting], timeout=0.3)
            assert not waiting.done()
        await waiting
        await store.close()
    finally:
        postgres.execute("DROP OWNED BY guest; DROP ROLE guest", name)


async def test_text_that_postgresql_cannot_hold(migrated_url: str, settings: Settings) -> None:
    """NUL is an escape in JSON and stays; in other text a sign stands for it."""
    store = await open_store(migrated_url, patient(settings))
    (run, *_) = await make_runs(store)
    step = StepRecord(
        "step_1", run.id, "a", outputs={"text": "a\0b", "\0": "\\u0000"}, error="x\0y"
    )
    await store.commit(run.id, 0, RunChanges((step,), run={"error": "\0"}))
    (stands,) = await store.list_steps(run.id)
    assert stands.outputs == step.outputs
    assert stands.error == "x\N{SYMBOL FOR NULL}y"
    with closing(psycopg.connect(migrated_url)) as plain:
        (text,) = plain.execute("SELECT outputs FROM step_executions").fetchone() or ("",)
    assert text == '{"text":"a\\u0000b","\\u0000":"\\\\u0000"}', "byte for byte"
    await store.close()
