"""One membership of this process in the fleet: its row, its ears, its heartbeat, its streams.

It ends when the process leaves, or when its lease was not renewed in time; a process that joins
again is another node, with another id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain
from typing import Final, LiteralString, Protocol

from swarm.dispatch.fleet.database import Asking, Listening
from swarm.dispatch.fleet.links import Links, Outbox, channel_of
from swarm.dispatch.fleet.queue import CHANNEL_PREFIX, queues_for
from swarm.dispatch.fleet.registry import BEATS_PER_LEASE, FENCE, Census, Registry
from swarm.dispatch.ports import LONG_LIVED
from swarm.dispatch.server import Emit, Handler, Server
from swarm.kernel.errors import DatabaseError, UnavailableError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject, JsonValue

CLIENT: Final = "client"
"""The role of a process that only asks."""
FLEET_CHANNEL: Final = "swarm_fleet"
MESSAGES_AT_ONCE = 64
MAX_AWAITED = 10_000
"""Runs of which a worker remembers who waits for them to be taken up; the oldest are forgotten."""
_NOTIFY: Final[LiteralString] = (
    "SELECT pg_notify(channel, payload) FROM unnest(%s::text[], %s::text[]) AS m(channel, payload)"
)


class NodeOptions(Protocol):
    """What this process is in the fleet."""

    @property
    def url(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def format_version(self) -> int: ...
    @property
    def lease_seconds(self) -> float: ...


class Node:
    """A membership; made, started once and stopped once."""

    def __init__(self, options: NodeOptions, asking: Asking, registry: Registry) -> None:
        self.id = new_id("host")
        self.queues = queues_for(options.labels, options.format_version)
        self.census: Census | None = None
        """What the latest heartbeat found."""
        self._options = options
        self._asking = asking
        self._registry = registry
        self._outbox = Outbox()
        self._handler: Handler | None = None
        self._server = Server(self._answer)
        self.links = Links(self.id, self._outbox, self._server.accept)
        self._awaiting: dict[str, set[asyncio.Future[None]]] = {}
        """Who waits here until a run is taken up, by the run."""
        self._awaited: OrderedDict[str, set[str]] = OrderedDict()
        self._taken: OrderedDict[str, None] = OrderedDict()
        """Runs that were taken up here: they may have ended before their followers are heard."""
        self._tasks: list[asyncio.Task[None]] = []
        self._restarting: asyncio.Task[None] | None = None

    async def start(
        self,
        *,
        left: Callable[[Node], None],
        wanted: Callable[[], None],
        missed: Callable[[], None],
        counted: Callable[[Node], None],
        lost: Callable[[Node], Awaitable[None]],
    ) -> None:
        """Take part.

        Args:
            left: told that another has left, or asks for a sweep.
            wanted: told that there may be a job.
            missed: told that what others have told may not have been heard.
            counted: told after each heartbeat that succeeded.
            lost: told that the lease was not renewed in time.

        Raises:
            DatabaseError: the database cannot be used.
        """
        self._left, self._wanted, self._missed = left, wanted, missed
        self._counted, self._lost = counted, lost
        channels = [channel_of(self.id), FLEET_CHANNEL]
        if self._options.role in LONG_LIVED:
            channels += [CHANNEL_PREFIX + queue for queue in self.queues]
        self._listening = Listening(self._options.url, channels, self._notice, self._gap)
        await self._listening.start()
        begun = asyncio.get_running_loop().time()
        options = self._options
        try:
            await self._registry.register(
                self.id,
                CLIENT,
                options.version,
                options.labels,
                options.format_version,
                options.lease_seconds,
            )
        except BaseException:
            await self._listening.close()
            raise
        self._tasks = [
            asyncio.create_task(self._beat(begun), name=f"heartbeat {self.id}"),
            asyncio.create_task(self._send(), name=f"notify {self.id}"),
        ]
        for task in (*self._tasks, self._listening.task):
            self.watch(task)

    def watch(self, task: asyncio.Task[None]) -> None:
        """Without this task, the process is no full member: should it fail, all is begun anew."""
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            loop = task.get_loop()
            loop.call_exception_handler(
                {"message": f"{task.get_name()} failed", "exception": error, "task": task}
            )
            self._restarting = loop.create_task(self._give_up(), name=f"restart {self.id}")

    async def _give_up(self) -> None:
        await self._lost(self)

    def serve(self, answer: Handler) -> None:
        """Serve the calls of others from now on."""
        self._handler = answer

    async def stop(self, *, is_lost: bool) -> None:
        """Take part no more; unless the lease is lost, others are told, so that they go on."""
        current = asyncio.current_task()
        await self._server.close()
        if not is_lost:
            self._outbox.put(FLEET_CHANNEL, f"left - {self.id}")
            await self._flush()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.links.close()
        await self._listening.close()
        for future in chain.from_iterable(self._awaiting.values()):
            future.cancel()

    async def _flush(self) -> None:
        """Send what is to be said last, and give the row up."""
        with contextlib.suppress(DatabaseError):
            await self._registry.forget([self.id])
            while not self._outbox.is_empty:
                await self._asking.rows(_NOTIFY, await self._outbox.take(MESSAGES_AT_ONCE))

    # -- the lease -------------------------------------------------------------------------------

    async def _beat(self, renewed: float) -> None:
        """Renew the lease for as long as that succeeds in time."""
        loop = asyncio.get_running_loop()
        lease = self._options.lease_seconds
        interval = lease / BEATS_PER_LEASE
        pause = 0.0
        while True:
            begun = loop.time()
            left = renewed + FENCE * lease - begun
            if left <= 0:
                break
            linked = self.links.others
            try:
                census = await self._registry.beat(self.id, min(interval, left))
            except DatabaseError:
                pause = min(interval / 4, max(left, 0.0))
            else:
                if not census.is_renewed:
                    break
                renewed, self.census, pause = begun, census, interval
                living = {host.id for host in census.living}
                for other in linked - living:
                    self.links.lost(other)
                self._counted(self)
            await asyncio.sleep(pause)
        await self._lost(self)

    # -- what is said and heard ------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            messages = await self._outbox.take(MESSAGES_AT_ONCE)
            try:
                await self._asking.rows(_NOTIFY, messages)
            except DatabaseError:
                self._outbox.clear()
                self.links.reset()

    def _notice(self, channel: str, payload: str) -> None:
        if channel == FLEET_CHANNEL:
            words = payload.split(" ")
            if len(words) != 3 or words[2] == self.id:
                return
            word, run_id, host_id = words
            if word == "left":
                self.links.lost(host_id)
                self._left(self)
            elif word == "sweep":
                self._left(self)
            elif word == "awaited":
                self._remember(run_id, host_id)
        elif channel != channel_of(self.id):
            self._wanted()
        elif payload.startswith("taken "):
            wake(self._awaiting.pop(payload.split(" ")[1], ()))
        else:
            self.links.heard(payload)

    def _gap(self) -> None:
        """It listens anew: what was told meanwhile is lost."""
        self.links.reset()
        wake(chain.from_iterable(self._awaiting.values()))
        self._awaiting.clear()
        self._missed()
        self._wanted()

    async def ask_for_sweep(self) -> None:
        """Have runs that nobody drives looked for by whoever does that.

        Raises:
            DatabaseError: it may not have been heard.
        """
        await self._asking.rows(_NOTIFY, ([FLEET_CHANNEL], [f"sweep - {self.id}"]))

    # -- runs that are waited for ----------------------------------------------------------------

    async def until_taken(self, run_id: str, seconds: float) -> None:
        """Wait until a worker says that it has taken the run up, or ``seconds`` have passed."""
        future = asyncio.get_running_loop().create_future()
        waiting = self._awaiting.setdefault(run_id, set())
        if not waiting:
            self._outbox.put(FLEET_CHANNEL, f"awaited {run_id} {self.id}")
        waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=seconds)
        finally:  # whoever follows the run may have heard otherwise that it was taken up
            waiting.discard(future)
            if not waiting and self._awaiting.get(run_id) is waiting:
                del self._awaiting[run_id]

    def _remember(self, run_id: str, host_id: str) -> None:
        """Tell a host of a run at once, if it was taken up here, or when it is."""
        if run_id in self._taken:
            self._outbox.put(channel_of(host_id), f"taken {run_id}")
            return
        self._awaited.setdefault(run_id, set()).add(host_id)
        while len(self._awaited) > MAX_AWAITED:
            self._awaited.popitem(last=False)

    def note_taken(self, run_id: str) -> None:
        """Tell whoever waits for it that this host has taken the run up."""
        self._taken[run_id] = None
        while len(self._taken) > MAX_AWAITED:
            self._taken.popitem(last=False)
        for host_id in self._awaited.pop(run_id, ()):
            self._outbox.put(channel_of(host_id), f"taken {run_id}")

    async def _answer(self, method: str, params: JsonObject, emit: Emit) -> JsonValue:
        if self._handler is None:
            raise UnavailableError("this process drives no runs", where=self.id)
        return await self._handler(method, params, emit)


def wake(waiting: Iterable[asyncio.Future[None]]) -> None:
    """Have all of those go on that still wait."""
    for future in waiting:
        if not future.done():
            future.set_result(None)
