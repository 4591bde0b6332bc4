"""The processes of one home on one machine, as peers: each drives what it finds.

Each host watches over all others by a connection and a lock (see ``dispatch.local_hosts``); a run
that nobody drives is taken up by whoever comes upon it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from swarm.dispatch.calls import PeerCalls, answering
from swarm.dispatch.local_hosts import HostLease, LocalHosts
from swarm.dispatch.ports import (
    LONG_LIVED,
    Duties,
    HostInfo,
    Membership,
    Placement,
    QueueInfo,
)
from swarm.dispatch.server import Emit
from swarm.kernel.errors import UnavailableError
from swarm.kernel.json import JsonObject, JsonValue

LOOK_SECONDS = 0.5
"""How often a follower looks whether a run that nobody drove was taken up by another process, which
need not know of this one."""


class LocalPeers:
    """This process among the hosts of its home; see :class:`swarm.dispatch.ports.Peers`."""

    def __init__(self, hosts: LocalHosts, role: str) -> None:
        self._hosts = hosts
        self._role = role
        self._calls = PeerCalls(hosts.connect)
        self._lease: HostLease | None = None
        self._duties: Duties | None = None
        self._joining = asyncio.Lock()
        self._watches: dict[str, asyncio.Task[None]] = {}

    @property
    def is_host(self) -> bool:
        return self._lease is not None

    @property
    def is_long_lived(self) -> bool:
        return self._role in LONG_LIVED

    @property
    def spreads(self) -> bool:
        return False

    async def join(self, duties: Duties, on_join: Callable[[Membership], None]) -> Membership:
        async with self._joining:
            if self._lease is None:
                self._duties = duties
                answer = answering(duties)

                async def handle(method: str, params: JsonObject, emit: Emit) -> JsonValue:
                    if method != "watch":
                        return await answer(method, params, emit)
                    self._watch(params["host_id"])
                    return True

                self._lease = await self._hosts.join(handle, self._role)
                on_join(_membership(self._lease))
                for host in self._hosts.list():
                    self._watch(host.id)
                await self._tell_all("watch", {"host_id": self._lease.id})
            return _membership(self._lease)

    async def leave(self) -> None:
        for task in self._watches.values():
            task.cancel()
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await lease.leave()

    async def living(self) -> list[HostInfo]:
        return self._hosts.list()

    async def is_first(self) -> bool:
        if self._lease is None:
            return False
        others = [host for host in self._hosts.list() if host.id != self._lease.id]
        return not any(host.is_long_lived or host.id < self._lease.id for host in others)

    async def is_alive(self, host_id: str) -> bool:
        if self._lease is not None and host_id == self._lease.id:
            return True
        return self._hosts.is_alive(host_id)

    async def hand_over(self, run: Placement) -> bool:
        if self.is_long_lived:
            return False
        workers = [host.id for host in self._hosts.list() if host.is_long_lived]
        return await self._calls.ask_first(workers, "drive", {"run_id": run.run_id})

    async def place(self, runs: Sequence[Placement]) -> Sequence[Placement]:
        return runs

    async def serves(self, run: Placement) -> bool:
        return True

    async def queues(self) -> list[QueueInfo]:
        return []

    def has_room(self) -> None:
        """Runs are handed over whether there is room or not; they wait here."""

    async def until_taken(self, run_id: str) -> None:
        await asyncio.sleep(LOOK_SECONDS)

    async def cancel(self, owner: str, run_id: str) -> None:
        await self._calls.cancel(owner, run_id)

    def follow(self, owner: str, run_id: str) -> AsyncIterator[JsonObject]:
        return self._calls.follow(owner, run_id)

    async def wake(self, owner: str, run_id: str) -> None:
        await self._calls.wake(owner, run_id)

    async def offer(self, run_id: str) -> bool:
        hosts = [host.id for host in self._hosts.list()]
        return await self._calls.ask_first(hosts, "wake", {"run_id": run_id})

    async def tell_freed(self, concurrency_key: str, project_id: str) -> None:
        await self._tell_all("freed", {"key": concurrency_key, "project_id": project_id})

    async def _tell_all(self, method: str, params: JsonObject) -> None:
        own = self._lease.id if self._lease is not None else None
        others = [host.id for host in self._hosts.list() if host.id != own]
        await self._calls.ask_all(others, method, params)

    def _watch(self, host_id: str) -> None:
        if self._lease is None or host_id in (self._lease.id, *self._watches):
            return
        task = asyncio.create_task(self._watch_until_dead(host_id), name=f"watch {host_id}")
        self._watches[host_id] = task
        task.add_done_callback(lambda _: self._watches.pop(host_id, None))

    async def _watch_until_dead(self, host_id: str) -> None:
        try:
            connection = await self._hosts.connect(host_id)
        except UnavailableError:
            pass
        else:
            await connection.closed()
            connection.close()
        await self._hosts.wait_gone(host_id)
        if self._lease is not None and self._duties is not None:
            await self._duties.on_death()


def _membership(lease: HostLease) -> Membership:
    return Membership(lease.id, (lease.lock_descriptor,))
