"""Behind PgBouncer in transaction mode, where every transaction may meet another server process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from msgspec.structs import replace

from swarm.kernel.settings import Settings
from swarm.store.postgres import open_store
from swarm.store.postgres.connection import connect, is_pooled
from swarm.store.postgres.failures import Failures
from swarm.store.records import (
    NewRun,
    RunChanges,
    RunFilter,
    RunRecord,
    RunState,
    StepRecord,
)
from tests.integration.store.conftest import AGENT, WORKFLOW
from tests.postgres.bouncer import CONNECTIONS, find_bouncer, running_bouncer
from tests.postgres.server import PostgresServer

RUNS = 40
STEPS = 8


@pytest.fixture
def pooled_url(postgres: PostgresServer, postgres_url: str) -> Iterator[str]:
    """The address of an empty database, through the pooler."""
    program = find_bouncer()
    if program is None:
        pytest.skip("PgBouncer is missing (Debian, Ubuntu: apt-get install pgbouncer)")
    with running_bouncer(postgres, program) as bouncer:
        yield postgres_url.replace(f":{postgres.port}/", f":{bouncer.port}/")


def test_a_pooler_is_noticed(postgres_url: str, pooled_url: str, settings: Settings) -> None:
    for url, expected in ((postgres_url, False), (pooled_url, True)):
        with closing(connect(url, settings, writes=False)) as raw:
            assert is_pooled(raw) is expected


def test_a_pooler_that_cannot_reach_the_server_is_told_as_such() -> None:
    told = psycopg.errors.ProtocolViolation("server login has been failing, try again later")
    assert "cannot be reached: server login" in str(Failures("there").explain(told))


async def test_stores_share_fewer_connections_than_they_have(
    pooled_url: str, postgres_url: str, settings: Settings
) -> None:
    settings = replace(settings, database_timeout_seconds=10.0)
    stores = await asyncio.gather(*(open_store(pooled_url, settings) for _ in range(3)))
    await stores[0].add_agent(AGENT)
    await stores[0].add_workflow(WORKFLOW)

    async def drive(number: int) -> None:
        store = stores[number % 3]
        run = RunRecord(f"run_{number}", WORKFLOW.id, WORKFLOW.name, "1.0.0")
        await store.create_run(NewRun(run))
        claimed = await store.claim_run(run.id, f"host_{number}", None)
        assert claimed is not None
        for count in range(STEPS):
            step = StepRecord(f"{run.id}_{count}", run.id, f"s{count}", agent_id=AGENT.id)
            await store.commit(run.id, claimed.epoch, RunChanges((step,)))
            assert len(await store.list_steps(run.id)) == count + 1
        await store.commit(
            run.id, claimed.epoch, RunChanges(run={"status": RunState.SUCCEEDED, "outputs": {}})
        )

    await asyncio.gather(*map(drive, range(RUNS)))
    listed = await stores[1].list_runs(RunFilter(states=(RunState.SUCCEEDED,), limit=1000))
    assert len(listed) == RUNS
    assert await stores[2].check() == []
    with closing(psycopg.connect(postgres_url, autocommit=True)) as plain:
        (used,) = plain.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone() or (0,)
    assert 0 < used <= CONNECTIONS
    await asyncio.gather(*(store.close() for store in stores))
