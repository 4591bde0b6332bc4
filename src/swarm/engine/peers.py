"""Talking with the other processes of the home that drive runs."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from swarm.dispatch.local_hosts import HostLease, LocalHosts
from swarm.engine.events import RunEvent
from swarm.kernel.errors import InvalidError, SwarmError, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.json import JsonObject, JsonValue

LONG_LIVED = frozenset({"worker", "serve"})
"""Roles of hosts that take runs over from processes that end sooner."""

ANSWER_SECONDS = 5.0
"""How long a host may take to answer what this process goes on without: it may be stopped
(SIGSTOP), which does not make its lock free."""

WORKER_START_SECONDS = 30.0
"""How long a background worker may take until it is ready."""


@dataclass(frozen=True, slots=True)
class PeerRequests:
    """What this process does when a peer asks."""

    drive: Callable[[str], Awaitable[bool]]
    cancel: Callable[[str], None]
    follow: Callable[[str], AsyncIterator[RunEvent]]
    wake: Callable[[str], Awaitable[bool]]
    freed: Callable[[str, str], Awaitable[None]]


class Peers:
    """This process among the hosts of its home."""

    def __init__(
        self,
        hosts: LocalHosts,
        role: str,
        requests: PeerRequests,
        on_death: Callable[[], Awaitable[None]],
    ) -> None:
        """``on_death`` is called whenever another host of the home has died or left, once this
        process is a host itself."""
        self._hosts = hosts
        self._role = role
        self._requests = requests
        self._on_death = on_death
        self._lease: HostLease | None = None
        self._joining = asyncio.Lock()
        self._watches: dict[str, asyncio.Task[None]] = {}

    @property
    def is_host(self) -> bool:
        """Whether this process has joined the hosts of its home."""
        return self._lease is not None

    @property
    def is_long_lived(self) -> bool:
        return self._role in LONG_LIVED

    @property
    def is_first(self) -> bool:
        """Whether no other live host is long-lived, or comes before this one: so that one of them,
        not each, does what has to be done."""
        if self._lease is None:
            return False
        others = [host for host in self._hosts.list() if host.id != self._lease.id]
        return not any(host.role in LONG_LIVED or host.id < self._lease.id for host in others)

    async def join(self, on_join: Callable[[HostLease], None]) -> HostLease:
        """Become a host, once: from then on all hosts of the home watch over each other."""
        async with self._joining:
            if self._lease is None:
                self._lease = await self._hosts.join(self._answer, self._role)
                on_join(self._lease)
                for host in self._hosts.list():
                    self._watch(host.id)
                await self._tell_all("watch", {"host_id": self._lease.id})
            return self._lease

    async def leave(self) -> None:
        for task in self._watches.values():
            task.cancel()
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await lease.leave()

    async def is_alive(self, host_id: str) -> bool:
        if self._lease is not None and host_id == self._lease.id:
            return True
        return self._hosts.is_alive(host_id)

    async def hand_over(self, run_id: str) -> bool:
        """Give a run to a long-lived host; False if none is up or it did not take it."""
        if self._role in LONG_LIVED:
            return False
        return await self._ask_workers("drive", {"run_id": run_id})

    async def cancel(self, owner: str, run_id: str) -> None:
        """Tell the owner to cancel; if it dies meanwhile, that is for the caller to find."""
        with contextlib.suppress(UnavailableError):
            await self._request(owner, "cancel", {"run_id": run_id})

    async def follow(self, owner: str, run_id: str) -> AsyncIterator[RunEvent]:
        """The events of a run that ``owner`` drives; ends early if the owner dies."""
        try:
            connection = await self._hosts.connect(owner)
        except UnavailableError:
            return
        try:
            async for document in connection.stream("follow", {"run_id": run_id}):
                yield RunEvent.from_json(document)
        except UnavailableError:
            return
        finally:
            connection.close()

    async def wake(self, owner: str, run_id: str) -> None:
        """Tell the owner that something has come for a run; if it dies meanwhile, who takes the run
        over finds it."""
        with contextlib.suppress(UnavailableError):
            await self._request(owner, "wake", {"run_id": run_id})

    async def offer(self, run_id: str) -> bool:
        """Offer a waiting run to the other hosts; False if none took it."""
        for host in self._hosts.list():
            with contextlib.suppress(UnavailableError):
                if await self._ask(host.id, "wake", {"run_id": run_id}):
                    return True
        return False

    async def tell_freed(self, concurrency_key: str, project_id: str) -> None:
        """Tell all hosts that a run with this key has ended."""
        await self._tell_all("freed", {"key": concurrency_key, "project_id": project_id})

    async def _tell_all(self, method: str, params: JsonObject) -> None:
        own = self._lease.id if self._lease is not None else None
        others = [host.id for host in self._hosts.list() if host.id != own]
        await asyncio.gather(
            *(self._ask(host_id, method, params) for host_id in others), return_exceptions=True
        )

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
        if self._lease is not None:
            await self._on_death()

    async def _ask_workers(self, method: str, params: JsonObject) -> bool:
        """Ask the long-lived hosts in turn until one says yes."""
        for host in self._hosts.list():
            if host.role not in LONG_LIVED:
                continue
            try:
                if await self._ask(host.id, method, params):
                    return True
            except UnavailableError:
                continue  # it has just ended; the next one, or this process, serves
        return False

    async def _ask(self, host_id: str, method: str, params: JsonObject) -> JsonValue:
        """As :meth:`_request`, but a host that does not answer in time is taken for one that is
        not there."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._request(host_id, method, params)
        except TimeoutError:
            raise UnavailableError(
                f"host {host_id} did not answer within {ANSWER_SECONDS:g} s"
            ) from None

    async def _request(self, host_id: str, method: str, params: JsonObject) -> JsonValue:
        connection = await self._hosts.connect(host_id)
        try:
            return await connection.request(method, params)
        finally:
            connection.close()

    async def _answer(
        self, method: str, params: JsonObject, emit: Callable[[JsonObject], None]
    ) -> JsonValue:
        """Serve one request of a peer."""
        match method:
            case "drive":
                return await self._requests.drive(params["run_id"])
            case "cancel":
                self._requests.cancel(params["run_id"])
                return True
            case "follow":
                async for event in self._requests.follow(params["run_id"]):
                    emit(event.as_json())
                return True
            case "watch":
                self._watch(params["host_id"])
                return True
            case "wake":
                return await self._requests.wake(params["run_id"])
            case "freed":
                await self._requests.freed(params["key"], params["project_id"])
                return True
            case _:
                raise InvalidError(f"a host does not know the request {method!r}")


class WorkerStarter:
    """Starts a worker that outlives this process and exits when idle."""

    def __init__(self, command: Sequence[str], home: Home) -> None:
        self._command = tuple(command)
        self._log = home.run_logs.parent / "worker.log"

    async def start(self) -> None:
        """Start a worker and wait until peers can reach it.

        Raises:
            UnavailableError: it could not be started.
        """
        try:
            process = await asyncio.to_thread(self._spawn)
        except OSError as error:
            raise self._failure(str(error)) from None
        if process.stdout is None:
            raise self._failure("it has no output to read")
        ready = asyncio.create_task(asyncio.to_thread(process.stdout.readline))
        # The worker outlives this event loop, so no transport of the loop may hold it. Somebody
        # must wait for it as long as this process lives, or it stays as a zombie.
        threading.Thread(target=process.wait, name="worker", daemon=True).start()
        try:
            line = await asyncio.wait_for(asyncio.shield(ready), WORKER_START_SECONDS)
        except TimeoutError:
            process.kill()
            await ready
            raise self._failure(f"it was not ready within {WORKER_START_SECONDS:g} s") from None
        if not line:
            raise self._failure("it ended at once")
        process.stdout.close()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def _failure(self, reason: str) -> SwarmError:
        return UnavailableError(
            f"a background worker could not be started: {reason}",
            where=str(self._log),
            remedy="read the log; or run without `--detach`",
        )


__all__ = ["LONG_LIVED", "PeerRequests", "Peers", "WorkerStarter"]
