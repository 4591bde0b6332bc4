"""The processes that share one PostgreSQL, as peers: workers take runs from a queue.

Each process that takes part writes itself in and renews its lease (``fleet.registry``), hears what
it is told (LISTEN/NOTIFY) and, if it is a worker, takes runs from the queues of its labels
(``fleet.queue``). What hosts ask of each other goes by streams of notifications (``fleet.links``).

One of the workers, the oldest, does what has to be done once: when a host has died, and every
:data:`SWEEP_SECONDS`, it has the runs that nobody drives looked for and given jobs anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.errors import UniqueViolation

from swarm.dispatch.calls import PeerCalls, answering
from swarm.dispatch.connection import HostConnection
from swarm.dispatch.fleet.database import Asking
from swarm.dispatch.fleet.node import CLIENT, Node
from swarm.dispatch.fleet.queue import ENQUEUE, QUEUES, TAKE, enqueue_values, queues_for
from swarm.dispatch.fleet.registry import Census, Registry
from swarm.dispatch.ports import (
    LONG_LIVED,
    Duties,
    HostInfo,
    Membership,
    Placement,
    QueueInfo,
)
from swarm.kernel.errors import DatabaseError, SwarmError, UnavailableError
from swarm.kernel.json import JsonObject

SWEEP_SECONDS = 60.0
"""How often runs that nobody drives are looked for, though nobody is known to have died."""
JOBS_AT_ONCE = 8
"""Jobs taken in one statement: few, so that other workers get their share."""
AGAIN_SECONDS = 0.5
"""After the queue could not be asked, until it is asked again."""
CENSUS_SECONDS = 1.0
"""How long a process without a heartbeat remembers who was there, if somebody takes its runs."""
LOOK_SECONDS = 5.0
"""How long a follower waits at most until it looks again whether its run was taken up."""


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What this process is in the fleet."""

    url: str
    """Of the database, not by way of a pooler that gives connections away in between."""
    role: str
    version: str
    labels: tuple[str, ...] = ()
    lease_seconds: float = 20.0
    format_version: int = 1
    """The newest format of runs that this Swarm understands."""


class FleetPeers:
    """This process among those of its database; see :class:`swarm.dispatch.ports.Peers`."""

    def __init__(self, options: FleetOptions) -> None:
        self._options = options
        self._asking = Asking(options.url)
        self._registry = Registry(self._asking)
        self._calls = PeerCalls(self.connect)
        self._node: Node | None = None
        self._entering = asyncio.Lock()
        self._duties: Duties | None = None
        self._on_join: Callable[[Membership], None] = lambda membership: None
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep_due = False
        self._has_missed = False
        """Whether something may have been lost here that whoever sweeps does not know of yet."""
        self._swept = 0.0
        self._seen: Census | None = None
        self._seen_at = 0.0
        self._sweeping = asyncio.Lock()
        self._left = False

    # -- taking part -----------------------------------------------------------------------------

    @property
    def spreads(self) -> bool:
        return True

    @property
    def is_host(self) -> bool:
        return self._node is not None and self._duties is not None

    @property
    def is_long_lived(self) -> bool:
        return self._options.role in LONG_LIVED

    async def prepare(self) -> None:
        """Make the fleet's tables if they are not there: from now on, new runs can have jobs.

        Raises:
            DatabaseError: the database cannot be used.
        """
        await self._asking.rows("SELECT 1")

    async def join(self, duties: Duties, on_join: Callable[[Membership], None]) -> Membership:
        async with self._entering:
            if self._node is None or self._duties is None:
                self._duties = duties
                self._on_join = on_join
                node = await self._enter()
                node.serve(answering(duties))
                await self._registry.set_role(node.id, self._options.role)
                on_join(Membership(node.id))
                if self.is_long_lived:
                    node.watch(self._spawn(self._work(node), f"work {node.id}"))
                self._wanted.set()
            else:
                node = self._node
            return Membership(node.id)

    async def _enter(self) -> Node:
        """Write this process in, as somebody who can be answered; a host it is by its role."""
        if self._node is None:
            options = self._options
            node = Node(options, self._asking, self._registry)
            await node.start(
                left=self._one_left,
                wanted=self._wanted.set,
                missed=self._missed,
                counted=self._counted,
                lost=self._lost,
            )
            self._node = node
        return self._node

    async def _entered(self) -> Node:
        async with self._entering:
            return await self._enter()

    async def leave(self) -> None:
        self._left = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._node is not None:
            node, self._node = self._node, None
            await node.stop(is_lost=False)
        await self._asking.close()

    async def _lost(self, node: Node) -> None:
        """This process is no host any more: it stops what it drives, and joins anew."""
        async with self._entering:
            if self._node is not node:
                return
            self._node = None
            self._wanted.set()
            if self._duties is not None:  # first of all: others may take over any moment
                await self._duties.on_loss()
            await node.stop(is_lost=True)
        if self.is_long_lived and self._duties is not None:
            self._spawn(self._rejoin(), "rejoin")

    async def _rejoin(self) -> None:
        duties = self._duties
        self._duties = None
        while duties is not None and not self._left:
            with contextlib.suppress(DatabaseError):
                await self.join(duties, self._on_join)
                self._missed()
                return
            self._duties = None
            await asyncio.sleep(AGAIN_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- who is there ----------------------------------------------------------------------------

    async def _census(self) -> Census:
        node = self._node
        if node is not None and node.census is not None:
            return node.census
        return await self._registry.census()

    async def living(self) -> list[HostInfo]:
        return [host for host in (await self._census()).living if host.role != CLIENT]

    async def is_first(self) -> bool:
        if self._node is None:
            return False
        others = [host for host in await self.living() if host.id != self._node.id]
        return not any(host.is_long_lived or host.id < self._node.id for host in others)

    async def is_alive(self, host_id: str) -> bool:
        if self._node is not None and host_id == self._node.id:
            return True
        return await self._registry.is_alive(host_id)

    async def connect(self, host_id: str) -> HostConnection:
        """Connect to a host.

        Raises:
            UnavailableError: it is gone.
        """
        if not await self.is_alive(host_id):
            raise UnavailableError("the host cannot be reached: it is gone", where=host_id)
        node = await self._entered()
        return HostConnection(host_id, *node.links.open(host_id))

    # -- calls -----------------------------------------------------------------------------------

    async def cancel(self, owner: str, run_id: str) -> None:
        await self._calls.cancel(owner, run_id)

    def follow(self, owner: str, run_id: str) -> AsyncIterator[JsonObject]:
        return self._calls.follow(owner, run_id)

    async def wake(self, owner: str, run_id: str) -> None:
        await self._calls.wake(owner, run_id)

    async def offer(self, run_id: str) -> bool:
        return False

    async def tell_freed(self, concurrency_key: str, project_id: str) -> None:
        """Nobody but this process needs to know: it gives the next run a job."""

    # -- the queue -------------------------------------------------------------------------------

    async def hand_over(self, run: Placement) -> bool:
        return not await self._mine([run])

    async def place(self, runs: Sequence[Placement]) -> Sequence[Placement]:
        mine = await self._mine(runs)
        left = {run.run_id for run in mine}
        others = [run for run in runs if run.run_id not in left]
        while others:
            try:
                await self._asking.rows(ENQUEUE, enqueue_values(others))
                break
            except DatabaseError as error:
                # Somebody else has enqueued one of them just now: what is there is left out then.
                if not isinstance(error.__cause__, UniqueViolation):
                    raise
        return mine

    async def _mine(self, runs: Sequence[Placement]) -> list[Placement]:
        """Those that this process is to drive: there is no worker that could, and it can."""
        if self.is_long_lived and self.is_host:
            return []
        options = self._options
        mine = [run for run in runs if _can_drive(run, options.labels, options.format_version)]
        if mine and (census := self._remembered()) is not None:
            mine = unserved(mine, census)
        if mine:  # a worker may have come since
            census = self._seen = await self._registry.census()
            self._seen_at = asyncio.get_running_loop().time()
            mine = unserved(mine, census)
        return mine

    def _remembered(self) -> Census | None:
        """Who was there lately."""
        if self._node is not None and self._node.census is not None:
            return self._node.census
        age = asyncio.get_running_loop().time() - self._seen_at
        return self._seen if age < CENSUS_SECONDS else None

    async def serves(self, run: Placement) -> bool:
        return not unserved([run], await self._census())

    async def queues(self) -> list[QueueInfo]:
        workers = [host for host in (await self._census()).living if host.is_long_lived]
        served = {name for host in workers for name in queues_for(host.labels, host.format_version)}
        return [
            QueueInfo(str(name), int(waiting), float(oldest), name in served)
            for name, waiting, oldest in await self._asking.rows(QUEUES)
        ]

    def has_room(self) -> None:
        self._wanted.set()

    async def until_taken(self, run_id: str) -> None:
        node = await self._entered()
        await node.until_taken(run_id, LOOK_SECONDS)

    async def _work(self, node: Node) -> None:
        """Take runs from the queue while there is room for them."""
        while self._node is node:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                while (duties := self._duties) and (run_ids := await self._take(node, duties)):
                    await self._drive(node, duties, run_ids)
            except DatabaseError:
                self._missed()
                await asyncio.sleep(AGAIN_SECONDS)
                self._wanted.set()

    async def _take(self, node: Node, duties: Duties) -> list[str]:
        """Take jobs for runs that there is room for here, unless this is no host any more."""
        room = min(duties.room(), JOBS_AT_ONCE) if self._node is node else 0
        if room <= 0:
            return []
        return [str(run_id) for (run_id,) in await self._asking.rows(TAKE, (node.queues, room))]

    async def _drive(self, node: Node, duties: Duties, run_ids: list[str]) -> None:
        try:
            taken = await duties.take(run_ids)
            for run_id in taken:
                node.note_taken(run_id)
            for run_id in run_ids:
                if run_id not in taken and await duties.drive(run_id):
                    node.note_taken(run_id)
        except SwarmError as error:
            # The runs stand as they did: the sweep finds them again.
            self._missed()
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"runs could not be taken up: {run_ids}", "exception": error}
            )

    # -- what is heard, and what is counted ------------------------------------------------------

    def _missed(self) -> None:
        """The database was away: jobs, or what was to be told of runs, may be lost."""
        self._sweep_due = self._has_missed = True

    def _one_left(self, node: Node) -> None:
        self._sweep_due = True
        self._spawn(self._look_after(node), "look after one that left")

    def _counted(self, node: Node) -> None:
        """After each heartbeat."""
        now = asyncio.get_running_loop().time()
        is_due = self._sweep_due or now - self._swept >= SWEEP_SECONDS
        census = node.census
        if self._duties is None or census is None or not (is_due or census.dead):
            return
        workers = [host.id for host in census.living if host.is_long_lived]
        if workers and workers[0] != node.id:
            self._sweep_due, self._swept = False, now
            if self._has_missed:
                self._spawn(self._ask_for_sweep(node), "ask for a sweep")
        else:
            self._spawn(self._look_after(node), "look after the dead")

    async def _ask_for_sweep(self, node: Node) -> None:
        """Have the one that sweeps do so now, as it may have missed nothing itself."""
        self._has_missed = False
        try:
            await node.ask_for_sweep()
        except DatabaseError:
            self._missed()

    async def _look_after(self, node: Node) -> None:
        """See that runs of the dead go on, if that is this process's to do."""
        if self._sweeping.locked() or self._duties is None:
            return
        async with self._sweeping:
            with contextlib.suppress(DatabaseError):  # it is still due: the next heartbeat
                await self._sweep(node, self._duties)

    async def _sweep(self, node: Node, duties: Duties) -> None:
        census = await self._registry.census()
        workers = [host.id for host in census.living if host.is_long_lived]
        now = asyncio.get_running_loop().time()
        if not workers or workers[0] == node.id:
            is_due = self._sweep_due or now - self._swept >= SWEEP_SECONDS
            if is_due or any(host.role != CLIENT for host in census.dead):
                self._sweep_due = self._has_missed = False
                try:
                    await duties.on_death()
                except SwarmError:
                    self._missed()
                    raise
                self._swept = now
            if census.dead:
                await self._registry.forget([host.id for host in census.dead])


def unserved(runs: Sequence[Placement], census: Census) -> list[Placement]:
    """The runs that no living worker has the labels for, or none understands."""
    workers = {(host.labels, host.format_version) for host in census.living if host.is_long_lived}
    return [run for run in runs if not any(_can_drive(run, *worker) for worker in workers)]


def _can_drive(run: Placement, labels: tuple[str, ...], format_version: int) -> bool:
    return set(run.runs_on) <= set(labels) and run.format_version <= format_version
