"""Processes that share one PostgreSQL: the queue, the leases, and calls by way of the database."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from psycopg import sql

from swarm.dispatch.fleet.database import Asking, connect
from swarm.dispatch.fleet.peers import FleetOptions, FleetPeers
from swarm.dispatch.fleet.queue import queue_of, queues_for
from swarm.dispatch.fleet.registry import BEATS_PER_LEASE, Registry
from swarm.dispatch.fleet.schema import (
    PROCRASTINATE,
    VERSION,
    history,
    prepare,
    procrastinate_schema,
)
from swarm.dispatch.fleet.upgrade import living_hosts, upgrade_fleet
from swarm.dispatch.ports import Duties, Membership, Placement
from swarm.kernel.errors import DatabaseError, InvalidError
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import Settings
from tests.postgres.server import PostgresServer

LEASE = 2.0
DEADLINE = 30.0


@dataclass
class Engine:
    """Takes up what it is given, as an engine would, and remembers it."""

    peers: FleetPeers
    places: int = 100
    taken: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    deaths: int = 0
    losses: int = 0
    is_failing: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def join(self) -> str:
        duties = Duties(
            drive=self._drive,
            take=self._take,
            cancel=self._cancel,
            follow=self._follow,
            wake=self._drive,
            freed=self._freed,
            room=lambda: self.places - len(self.taken),
            on_death=self._on_death,
            on_loss=self._on_loss,
        )
        return (await self.peers.join(duties, self._on_join)).id

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def _on_join(self, membership: Membership) -> None:
        self.ids.append(membership.id)
        self.changed.set()

    async def _drive(self, run_id: str) -> bool:
        if self.is_failing:
            raise DatabaseError("the server was lost")
        self.taken.append(run_id)
        self.changed.set()
        return True

    async def _take(self, run_ids: Sequence[str]) -> list[str]:
        return [run_id for run_id in run_ids[:-1] if await self._drive(run_id)]

    def _cancel(self, run_id: str) -> None:
        self.cancelled.append(run_id)

    async def _follow(self, run_id: str) -> AsyncIterator[JsonObject]:
        for number in range(3):
            yield {"run": run_id, "number": number, "text": "é" * 10_000}

    async def _freed(self, key: str, project: str) -> None:
        raise AssertionError("nobody is told")

    async def _on_death(self) -> None:
        self.deaths += 1
        self.changed.set()

    async def _on_loss(self) -> None:
        self.losses += 1
        self.changed.set()


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[Callable[..., Engine]]:
    """Makes members of one fleet."""
    async with AsyncExitStack() as stack:

        def make(
            role: str = "worker", labels: tuple[str, ...] = (), lease: float = LEASE
        ) -> Engine:
            peers = FleetPeers(FleetOptions(postgres_url, role, "1", labels, lease))
            stack.push_async_callback(peers.leave)
            return Engine(peers)

        yield make


async def test_each_run_is_taken_by_one_worker(engine: Callable[..., Engine]) -> None:
    workers = [engine() for _ in range(3)]
    for worker in workers:
        await worker.join()
    client = engine("run")
    runs = [Placement(f"run_{number}") for number in range(50)]
    assert await client.peers.place(runs) == []
    async with asyncio.timeout(DEADLINE):
        while sum(len(worker.taken) for worker in workers) < len(runs):
            await asyncio.wait(
                [asyncio.ensure_future(worker.changed.wait()) for worker in workers],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for worker in workers:
                worker.changed.clear()
    taken = [run for worker in workers for run in worker.taken]
    assert sorted(taken) == sorted(run.run_id for run in runs)


async def test_what_has_higher_priority_is_taken_first(engine: Callable[..., Engine]) -> None:
    worker = engine()
    worker.places = 0
    await worker.join()
    await worker.peers.place([Placement(f"run_{number}", number) for number in range(5)])
    worker.places = 100
    worker.peers.has_room()
    await worker.until(lambda: len(worker.taken) == 5)
    assert worker.taken == [f"run_{number}" for number in reversed(range(5))]


async def test_a_run_is_in_the_queue_once(
    engine: Callable[..., Engine], postgres: PostgresServer, postgres_url: str
) -> None:
    worker = engine()
    worker.places = 0
    await worker.join()
    run = Placement("run_1")
    await asyncio.gather(*(worker.peers.place([run, run]) for _ in range(5)))
    other = engine("run")
    assert not await other.peers.place([run])
    database = postgres_url.rpartition("/")[2]
    assert postgres.execute("SELECT count(*) FROM procrastinate_jobs", database) == "1"
    worker.places = 1
    worker.peers.has_room()
    await worker.until(lambda: worker.taken == ["run_1"])


async def test_labels_choose_the_worker(engine: Callable[..., Engine]) -> None:
    plain, able = engine(), engine(labels=("gpu", "team:x"))
    await plain.join()
    client = engine("run")
    wanted = Placement("run_gpu", runs_on=("gpu",))
    # Nobody has the label, and whoever asks has it not either: it waits in the queue.
    assert await client.peers.place([wanted]) == []
    assert await client.peers.place([Placement("run_plain")]) == []
    await plain.until(lambda: plain.taken == ["run_plain"])
    await able.join()
    await able.until(lambda: "run_gpu" in able.taken)
    assert plain.taken == ["run_plain"]


async def test_without_a_worker_a_run_is_its_starters(engine: Callable[..., Engine]) -> None:
    client = engine("run")
    await client.join()
    run = Placement("run_1")
    assert not await client.peers.hand_over(run)
    assert await client.peers.place([run]) == [run]
    worker = engine()
    await worker.join()
    assert await engine("run").peers.hand_over(run)


async def test_calls_and_streams_go_by_the_database(engine: Callable[..., Engine]) -> None:
    worker, client = engine(), engine("cli")
    owner = await worker.join()
    events = [event async for event in client.peers.follow(owner, "run_1")]
    assert [event["number"] for event in events] == [0, 1, 2]
    assert events[2]["text"] == "é" * 10_000
    await client.peers.cancel(owner, "run_1")
    assert worker.cancelled == ["run_1"]
    await client.peers.wake(owner, "run_2")
    assert worker.taken == ["run_2"]


async def test_a_follower_is_told_when_its_run_is_taken(engine: Callable[..., Engine]) -> None:
    worker, client = engine(), engine("run")
    worker.places = 0
    await worker.join()
    await client.peers.place([Placement("run_1")])
    loop = asyncio.get_running_loop()
    waiting = asyncio.ensure_future(client.peers.until_taken("run_1"))
    worker.places = 1
    worker.peers.has_room()
    begun = loop.time()
    await waiting
    await client.peers.until_taken("run_1")  # and of one that was taken before it asked
    assert loop.time() - begun < 3


async def test_a_follower_that_gives_up_leaves_nothing_behind_and_others_waiting(
    engine: Callable[..., Engine],
) -> None:
    worker, client = engine(), engine("run")
    worker.places = 0
    await worker.join()
    await client.peers.place([Placement("run_1")])
    await client.join()
    assert client.peers._node is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.peers.until_taken("run_1")
    assert not client.peers._node._awaiting
    waits = asyncio.ensure_future(client.peers.until_taken("run_1"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.peers.until_taken("run_1")
    begun = asyncio.get_running_loop().time()
    worker.places = 1
    worker.peers.has_room()
    await waits
    assert asyncio.get_running_loop().time() - begun < 3
    assert not client.peers._node._awaiting


async def test_who_leaves_is_missed_at_once(engine: Callable[..., Engine]) -> None:
    stays, goes = engine(lease=60.0), engine(lease=60.0)
    await stays.join()
    host_id = await goes.join()
    assert await stays.peers.is_alive(host_id)
    deaths = stays.deaths
    await goes.peers.leave()
    await stays.until(lambda: stays.deaths > deaths)
    assert not await stays.peers.is_alive(host_id)


async def test_what_one_worker_misses_is_looked_for_by_the_one_that_sweeps(
    engine: Callable[..., Engine],
) -> None:
    sweeps, fails = engine(), engine()
    sweeps.places, fails.is_failing = 0, True
    await sweeps.join()
    await fails.join()
    await sweeps.until(lambda: sweeps.deaths > 0)  # as it does when it joins
    deaths = sweeps.deaths
    await fails.peers.place([Placement("run_1")])
    await sweeps.until(lambda: sweeps.deaths > deaths)
    assert fails.deaths == 0


async def test_a_lease_that_was_not_renewed_is_lost_for_good(
    engine: Callable[..., Engine], postgres_url: str
) -> None:
    stays, paused = engine(), engine()
    await stays.join()
    host_id = await paused.join()
    deaths = stays.deaths
    asking = Asking(postgres_url)
    await asking.rows(
        "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour' "
        "FROM fleet_hosts WHERE worker_id = procrastinate_workers.id AND fleet_hosts.id = %s",
        (host_id,),
    )
    await asking.close()
    assert not await stays.peers.is_alive(host_id)
    await paused.until(lambda: paused.losses == 1 and len(paused.ids) == 2)
    await stays.until(lambda: stays.deaths > deaths)
    assert not await stays.peers.is_alive(host_id)
    assert await stays.peers.is_alive(paused.ids[1])


def test_queues_have_names_that_can_be_notified() -> None:
    assert queues_for(()) == ["swarm"]
    assert queues_for(["b", "a"]) == ["swarm", "swarm:a", "swarm:b", "swarm:a+b"]
    long = queue_of([f"a-rather-long-label-{number}" for number in range(5)])
    assert len(f"procrastinate_queue_v1#{long}".encode()) < 64
    with pytest.raises(InvalidError, match="8 labels"):
        queues_for([str(number) for number in range(9)])


def test_runs_of_a_newer_format_lie_in_queues_of_their_own() -> None:
    assert queue_of(["gpu"], 2) in queues_for(["gpu"], 2)
    assert set(queues_for(["gpu"], 1)) == {"swarm", "swarm:gpu"}
    assert set(queues_for(["gpu"], 2)) == {"swarm", "swarm:gpu", "swarm@2", "swarm@2:gpu"}
    assert len(queue_of(["x" * 60], 12)) <= 40


def test_another_release_of_procrastinate_needs_a_step_of_the_schema() -> None:
    digest = hashlib.sha256(procrastinate_schema().encode()).hexdigest()
    assert digest.startswith(PROCRASTINATE)
    assert len(history()) == VERSION


async def test_tables_of_another_version_are_refused_with_what_to_do(postgres_url: str) -> None:
    asking = Asking(postgres_url)
    await asking.rows("SELECT 1")
    for change, remedy in (("version = 1", "swarm db migrate"), ("oldest = 9", "stop this Swarm")):
        await asking.rows(f"UPDATE fleet_schema SET {change}")  # type: ignore[arg-type]
        with pytest.raises(DatabaseError) as refused:
            await Asking(postgres_url).rows("SELECT 1")
        assert remedy in str(refused.value.remedy)
    await asking.close()


async def test_an_older_fleet_is_brought_up_to_date(postgres_url: str) -> None:
    connection = await connect(postgres_url)
    await connection.execute(sql.SQL(history()[0].script))
    await upgrade_fleet(postgres_url)
    await prepare(connection)
    await connection.close()
    assert living_hosts(postgres_url) == []


@pytest.mark.parametrize(("lease", "aim"), [(Settings().lease_seconds, 30), (3.0, 5)])
async def test_a_lease_runs_out_by_the_databases_clock_within_the_aim(
    postgres_url: str, lease: float, aim: float
) -> None:
    """Who is dead is known at the latest a heartbeat of another host after the lease's end."""
    assert lease + lease / BEATS_PER_LEASE <= aim
    asking = Asking(postgres_url)
    registry = Registry(asking)
    await registry.register("host_1", "worker", "1", (), 1, lease)

    async def unheard_for(seconds: float) -> None:
        await asking.rows(
            "UPDATE procrastinate_workers SET last_heartbeat = now() - make_interval(secs => %s)",
            (seconds,),
        )

    await unheard_for(lease - 1)
    assert await registry.is_alive("host_1")
    assert [host.id for host in (await registry.census()).living] == ["host_1"]
    await unheard_for(lease + 0.01)
    assert not await registry.is_alive("host_1")
    assert [host.id for host in (await registry.census()).dead] == ["host_1"]
    assert not (await registry.beat("host_1", 5)).is_renewed, "for good"
    await asking.close()
