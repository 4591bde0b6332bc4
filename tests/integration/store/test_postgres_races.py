"""What transactions side by side must not do to each other: real connections, many rounds.

A companion sleeps within the transaction, right before its COMMIT, so that what comes second comes
while the first is still open.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.clock import now_text
from swarm.kernel.errors import ConflictError, OwnershipLost
from swarm.kernel.ids import new_id
from swarm.kernel.settings import Settings
from swarm.store.postgres import PostgresStore, open_store
from swarm.store.records import (
    AnswerRecord,
    EventRecord,
    NewRun,
    RunChanges,
    RunFilter,
    RunRecord,
    RunState,
    SecretRecord,
    SecretScope,
    StepRecord,
    StepState,
    Usage,
)
from swarm.store.sql.connection import Connection
from tests.integration.store.conftest import WORKFLOW

SECONDS = 0.05


@dataclass
class Dawdler:
    """Waits within transactions, and notes what it is told."""

    slow: str = "nothing"
    """In which of its methods it waits."""
    told: list[tuple[str, str]] = field(default_factory=list)

    def created(self, connection: Connection, runs: Sequence[RunRecord]) -> None:
        self._note(connection, "created", [run.id for run in runs])

    def awakened(self, connection: Connection, run_ids: Sequence[str]) -> None:
        self._note(connection, "awakened", run_ids)

    def released(self, connection: Connection, run_id: str, run: Mapping[str, Any]) -> None:
        self._note(connection, "released", [run_id])

    def _note(self, connection: Connection, what: str, run_ids: Sequence[str]) -> None:
        if what == self.slow:
            connection.execute(f"SELECT pg_sleep({SECONDS})")
        self.told += [(what, run_id) for run_id in run_ids]


Open = Callable[[], Awaitable[PostgresStore]]


@pytest.fixture
def dawdler() -> Dawdler:
    return Dawdler()


@pytest.fixture
async def stores(
    migrated_url: str, settings: Settings, dawdler: Dawdler
) -> AsyncIterator[list[PostgresStore]]:
    """Three processes' worth of connections."""
    settings = replace(settings, database_timeout_seconds=10.0)
    opened = [await open_store(migrated_url, settings, companions=[dawdler]) for _ in range(3)]
    await opened[0].add_workflow(WORKFLOW)
    yield opened
    for store in opened:
        await store.close()


def new_run(**fields: Any) -> RunRecord:
    return RunRecord(
        new_id("run"), WORKFLOW.id, WORKFLOW.name, "1.0.0", created_at="2026", **fields
    )


async def waiting_run(store: PostgresStore, kind: str) -> RunRecord:
    """A run that a host drives, with a step that waits."""
    run = new_run(owner="host_1", epoch=1, status=RunState.RUNNING)
    step = StepRecord(
        new_id("step"), run.id, "w", status=StepState.WAITING, wait_kind=kind, wait_name="paid"
    )
    await store.create_run(NewRun(run, (step,)))
    return run


GIVE_UP = RunChanges(run={"status": RunState.WAITING, "wake_at": None})


async def answer(store: PostgresStore, run: RunRecord) -> bool:
    given = AnswerRecord(run.id, "w", -1, {"approved": True}, now_text())
    return await store.answer_wait(given)


async def cancel(store: PostgresStore, run: RunRecord) -> bool:
    return await store.request_cancel(run.id) is not None


async def send(store: PostgresStore, run: RunRecord) -> bool:
    event = EventRecord(new_id("evt"), "paid", None, {}, now_text())
    assert run.id in await store.add_event(event)
    return True


@pytest.mark.parametrize(
    ("kind", "bring"), [("approval", answer), ("event", send), ("approval", cancel)]
)
@pytest.mark.parametrize("slow", ["nothing", "released", "awakened"])
async def test_no_wake_up_is_lost(
    stores: list[PostgresStore],
    dawdler: Dawdler,
    rng: random.Random,
    scale: Any,
    kind: str,
    bring: Callable[[PostgresStore, RunRecord], Awaitable[bool]],
    slow: str,
) -> None:
    """Either the run is not given up, or who brought the news sees that nobody drives it."""
    driver, other, _ = stores
    dawdler.slow = slow
    kept = 0
    wanted = scale(small=10, full=300)
    for number in range(20 * wanted):
        if kept and number >= wanted:
            break
        run = await waiting_run(driver, kind)

        async def release(run: RunRecord = run, wait: float = rng.random() / 50) -> bool:
            await asyncio.sleep(wait)
            return await driver.release_run(run.id, 1, GIVE_UP)

        async def come(run: RunRecord = run, wait: float = rng.random() / 50) -> str | None:
            await asyncio.sleep(wait)
            assert await bring(other, run)
            seen = await other.get_run(run.id)
            assert seen is not None
            return seen.owner

        released, owner = await asyncio.gather(release(), come())
        kept += not released
        assert not (released and owner is not None), "nobody would wake the run"
        assert ("awakened", run.id) in dawdler.told
        assert released == (("released", run.id) in dawdler.told)
    assert kept, "at times the news comes first"


async def test_a_limit_is_never_exceeded(stores: list[PostgresStore], scale: Any) -> None:
    limit, count = 2, scale(small=20, full=200)
    for _ in range(count):
        runs = [new_run(concurrency_key="k", concurrency_limit=limit) for _ in range(6)]
        await asyncio.gather(*(stores[0].create_run(NewRun(run)) for run in runs))
        claims = await asyncio.gather(
            *(stores[n % 3].claim_run(run.id, f"host_{n}", None) for n, run in enumerate(runs))
        )
        won = [claim for claim in claims if claim is not None]
        assert len(won) == limit
        await asyncio.gather(
            *(
                stores[0].commit(run.id, run.epoch, RunChanges(run={"status": RunState.SUCCEEDED}))
                for run in won
            ),
            *(
                stores[1].commit(run.id, 0, RunChanges(run={"status": RunState.CANCELLED}))
                for run in runs
                if run.id not in {one.id for one in won}
            ),
        )


async def test_nothing_is_written_after_a_takeover(
    stores: list[PostgresStore], dawdler: Dawdler, rng: random.Random, scale: Any
) -> None:
    """What the one who takes over is given is the last that the other has written."""
    driver, other, _ = stores
    dawdler.slow = "created"
    for _ in range(scale(small=15, full=200)):
        run = new_run(owner="host_1", epoch=1, status=RunState.RUNNING)
        await driver.create_run(NewRun(run))

        async def write(run: RunRecord = run) -> int:
            """Commits until it has lost the run; how many were acknowledged."""
            number = 0
            while True:
                child = NewRun(new_run(parent_run_id=run.id))  # the companion sleeps on it
                changes = RunChanges(run={"total_api_tokens": number + 1}, children=(child,))
                try:
                    await driver.commit(run.id, 1, changes)
                except OwnershipLost:
                    return number
                number += 1

        writing = asyncio.create_task(write())
        await asyncio.sleep(rng.random() / 20)
        taken = await other.claim_run(run.id, "host_2", "host_1")
        acknowledged = await writing
        stands = await other.get_run(run.id)
        assert taken == stands
        assert taken is not None
        assert taken.total_api_tokens == acknowledged
        children = await other.list_runs(RunFilter(parent_run_id=run.id, limit=1000))
        assert len(children) == acknowledged, "a stale commit leaves nothing"


async def test_one_key_makes_one_run(stores: list[PostgresStore], scale: Any) -> None:
    for number in range(scale(small=10, full=100)):
        runs = [new_run(idempotency_key=f"key {number}") for _ in range(12)]
        made = await asyncio.gather(
            *(stores[n % 3].create_run(NewRun(run)) for n, run in enumerate(runs))
        )
        assert len({run.id for run in made}) == 1
    listed = await stores[0].list_runs(RunFilter(limit=1000))
    assert len(listed) == number + 1


async def test_use_is_added_up_exactly_whoever_adds_it(
    stores: list[PostgresStore], rng: random.Random, scale: Any
) -> None:
    """Commits that lock the same runs in any order get through."""
    runs = [new_run(status=RunState.RUNNING) for _ in range(4)]
    for run in runs:
        await stores[0].create_run(NewRun(run))
    count = scale(small=60, full=1000)

    async def add(store: PostgresStore) -> None:
        own, root = rng.sample(runs, 2)
        await store.commit(own.id, 0, RunChanges(tree_usage=(root.id, Usage(tokens=1))))

    await asyncio.gather(*(add(store) for store in stores for _ in range(count)))
    found = [await stores[0].get_run(run.id) for run in runs]
    assert sum(run.tree_api_tokens for run in found if run) == 3 * count


async def test_operations_that_wait_for_each_other_all_end(
    stores: list[PostgresStore], dawdler: Dawdler, scale: Any
) -> None:
    """Runs created with children of each other's ids: a deadlock, which the server ends."""
    dawdler.slow = "created"
    for _ in range(scale(small=2, full=20)):
        parents = [new_run(status=RunState.RUNNING) for _ in range(2)]
        for run in parents:
            await stores[0].create_run(NewRun(run))
        first, second = (NewRun(new_run(idempotency_key=new_id("key"))) for _ in range(2))
        await asyncio.gather(
            stores[0].commit(parents[0].id, 0, RunChanges(children=(first,))),
            stores[1].commit(parents[1].id, 0, RunChanges(children=(second,))),
            stores[0].create_run(second),
            stores[1].create_run(first),
            return_exceptions=True,
        )
        for new in (first, second):
            assert await stores[2].get_run(new.run.id) == new.run


async def test_a_secret_is_not_replaced_by_who_may_not(stores: list[PostgresStore]) -> None:
    def secret(name: str, number: int) -> SecretRecord:
        return SecretRecord(new_id("sec"), name, SecretScope.PROJECT, bytes([number]), b"w", "k")

    for name in "ABCDEFGHIJ":
        results = await asyncio.gather(
            *(stores[n % 3].put_secrets([secret(name, n)], may_replace=False) for n in range(9)),
            return_exceptions=True,
        )
        assert sum(result is None for result in results) == 1
        assert sum(isinstance(result, ConflictError) for result in results) == 8
