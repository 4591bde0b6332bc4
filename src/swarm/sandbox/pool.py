"""Single-use sandboxes kept ready, so that a call finds one that is built and has its code loaded.

A shelf holds sandboxes for equal requests: the same package digest, entry, environment, limits,
network and variables. Each is given to one call and never comes back. One filler builds ahead, at
a lower priority, and only while no call waits for a build of its own or has just begun: most are
over in a moment, which a build beside them would double. What is wanted follows
demand: nothing after the first call of a kind, one from the second on, one more with each call that
found the shelf empty, up to the limits; a shelf that is not used for a while is emptied.

Requests with files mounted in are built when they come: their mounts are known only then. For them,
for the first call of a kind and for one that found its shelf empty there are blanks: sandboxes that
no package is bound to yet, made last and given up first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

from swarm.kernel.errors import SwarmError
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import MIB, Settings
from swarm.sandbox.ports import (
    AheadBackend,
    CallContext,
    GuestServices,
    IdleSandbox,
    InvocationResult,
    Isolation,
    Sandbox,
    SandboxRequest,
)

_RETIRING_LIMIT: Final = 8
"""Sandboxes that may be taken apart at once; more, and ``destroy`` waits for one of them."""
_HEAD_START_SECONDS: Final = 0.02
"""How long a call has the machine for itself, unless it ends earlier."""
_DEATHS_LIMIT: Final = 3
"""Sandboxes of a shelf that may fail or die before their call; then it is not filled again."""


@dataclass(eq=False)
class Shelf:
    """What is ready for one kind of request."""

    request: SandboxRequest
    used_at: float
    """The loop's time of the last request."""
    calls: int = 0
    wanted: int = 0
    deaths: int = 0
    is_filling: bool = False
    ready: deque[IdleSandbox] = field(default_factory=deque)
    waiting: deque[asyncio.Future[IdleSandbox | None]] = field(default_factory=deque)
    """Calls that wait for the sandbox that is being filled; they get None when that fails."""

    def ask(self, now: float) -> None:
        self.used_at = now
        self.calls += 1
        if self.calls > 1:
            self.wanted = max(self.wanted, 1)

    def missed(self, limit: int) -> None:
        if self.calls > 1:
            self.wanted = min(self.wanted + 1, limit)

    @property
    def lacks(self) -> int:
        return 0 if self.deaths >= _DEATHS_LIMIT else self.wanted - len(self.ready)


class PooledBackend:
    """Another backend's sandboxes, with some kept ready. See this module's description.

    ``prepare`` gives sandboxes whose ``destroy`` returns at once: they are taken apart while the
    caller goes on, and ``close`` waits for the last.

    Args:
        backend: builds the sandboxes; closed with the pool.
        settings: the ``pool_*`` limits.
    """

    def __init__(self, backend: AheadBackend, settings: Settings) -> None:
        self._backend = backend
        self._settings = settings
        self._shelves: dict[Hashable, Shelf] = {}
        self._building = 0
        self._starting = 0
        self._used_at = 0.0
        self._blanks = backend.blanks
        self._may_make_blanks = False
        self._changed = asyncio.Event()
        self._filler: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def prepare(self, request: SandboxRequest) -> Sandbox:
        """A sandbox for one call; see :class:`swarm.sandbox.ports.SandboxBackend`."""
        if self._per_shelf == 0:
            return PooledSandbox(await self._build(request), self)
        self._used_at = asyncio.get_running_loop().time()
        self._may_make_blanks = True
        if request.inputs:
            self._start_filler()
            return PooledSandbox(await self._build(request), self)
        shelf = self._shelf(request)
        shelf.ask(self._used_at)
        taken = self._take(shelf)
        if taken is None:
            shelf.missed(self._per_shelf)
            taken = await self._take_next(shelf)
        self._start_filler()
        if taken is None:
            return PooledSandbox(await self._build(request), self)
        taken.wake()
        return PooledSandbox(taken, self)

    async def close(self) -> None:
        """Destroy every sandbox, and close the backend; safe to call twice."""
        self._is_closed = True
        if self._filler is not None:
            self._filler.cancel()
            await asyncio.wait([self._filler])
            self._filler = None
        for shelf in self._shelves.values():
            self._empty(shelf)
        self._shelves.clear()
        while self._retiring:
            await asyncio.wait(self._retiring)
        await self._backend.close()

    @property
    def ready(self) -> int:
        """How many sandboxes are ready, in all."""
        return sum(len(shelf.ready) for shelf in self._shelves.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing is ready, wanted or being taken apart."""
        blank = 0 if self._blanks is None else self._blanks.ready
        return not (self._shelves or self._retiring or blank)

    async def retire(self, sandbox: Sandbox) -> None:
        """Take a sandbox apart behind the caller's back, unless too many are already."""
        task = asyncio.get_running_loop().create_task(sandbox.destroy())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        while len(self._retiring) > _RETIRING_LIMIT:
            await asyncio.wait(self._retiring, return_when=asyncio.FIRST_COMPLETED)

    def give_head_start(self) -> Callable[[], None]:
        """Fill nothing until the returned call is made, or for a moment. It may be made twice."""
        self._starting += 1
        timer = asyncio.get_running_loop().call_later(_HEAD_START_SECONDS, self._end_head_start)

        def end() -> None:
            if not timer.cancelled() and timer.when() > asyncio.get_running_loop().time():
                timer.cancel()
                self._end_head_start()

        return end

    def _end_head_start(self) -> None:
        self._starting -= 1
        self._changed.set()

    @property
    def _per_shelf(self) -> int:
        return min(self._settings.pool_ready_per_package, self._settings.pool_ready)

    def _shelf(self, request: SandboxRequest) -> Shelf:
        kind = (
            request.program,
            request.limits,
            request.network,
            frozenset(request.environment.items()),
        )
        if kind not in self._shelves:
            now = asyncio.get_running_loop().time()
            self._shelves[kind] = Shelf(request, now)
        return self._shelves[kind]

    async def _build(self, request: SandboxRequest) -> Sandbox:
        self._building += 1
        try:
            return await self._backend.prepare(request)
        finally:
            self._building -= 1
            self._changed.set()

    def _take(self, shelf: Shelf) -> IdleSandbox | None:
        """One that is ready and alive; the dead are buried."""
        while shelf.ready:
            sandbox = shelf.ready.popleft()
            if sandbox.is_alive:
                return sandbox
            shelf.deaths += 1
            self._bury(sandbox)
        return None

    async def _take_next(self, shelf: Shelf) -> IdleSandbox | None:
        """The one that is being filled, if no earlier call waits for it."""
        if not shelf.is_filling or any(not other.done() for other in shelf.waiting):
            return None
        waiting: asyncio.Future[IdleSandbox | None]
        waiting = asyncio.get_running_loop().create_future()
        shelf.waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and (got := waiting.result()):
                self._bury(got)
            raise

    def _start_filler(self) -> None:
        self._changed.set()
        if self._filler is not None and self._filler.done():
            self._filler.result()  # It ends by an error only, which is not to be lost.
        if self._filler is None and not self._is_closed:
            self._filler = asyncio.get_running_loop().create_task(self._fill())

    async def _fill(self) -> None:
        """Fill and drain for as long as the pool is open."""
        while True:
            self._changed.clear()
            rest = self._drain()
            is_quiet = not self._building and not self._starting
            shelf = self._next_to_fill() if is_quiet else None
            if shelf is not None:
                await self._fill_one(shelf)
            elif is_quiet and self._lacks_blank():
                await self._make_blank()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        await self._changed.wait()

    async def _fill_one(self, shelf: Shelf) -> None:
        """Build one ahead, for the shelf or for the call that waits for it."""
        shelf.is_filling = True
        sandbox: IdleSandbox | None = None
        try:
            sandbox = await self._backend.prepare_ahead(shelf.request)
        except SwarmError:
            # The calls that follow build their own, and are told what is wrong.
            shelf.deaths += 1
        finally:
            shelf.is_filling = False
            self._hand_over(shelf, sandbox)

    def _lacks_blank(self) -> bool:
        if self._blanks is None or not self._may_make_blanks:
            return False
        return self._blanks.ready < self._settings.pool_blank and self._has_room()

    async def _make_blank(self) -> None:
        assert self._blanks is not None
        before = self._blanks.ready
        with contextlib.suppress(SwarmError):  # The next call builds its own, and is told.
            await self._blanks.make()
        # Not again and again where it fails, but after the next call.
        self._may_make_blanks = self._blanks.ready > before

    def _hand_over(self, shelf: Shelf, sandbox: IdleSandbox | None) -> None:
        while shelf.waiting:
            waiting = shelf.waiting.popleft()
            if not waiting.done():
                waiting.set_result(sandbox)
                return
        if sandbox is not None:
            shelf.ready.append(sandbox)

    def _next_to_fill(self) -> Shelf | None:
        """The shelf that lacks one and was used last, if there is room or room can be made."""
        lacking = [shelf for shelf in self._shelves.values() if shelf.lacks > 0]
        if not lacking:
            return None
        chosen = max(lacking, key=lambda shelf: shelf.used_at)
        while not self._has_room():
            if self._blanks is not None and self._blanks.ready:
                self._blanks.drop()
                continue
            others = [shelf for shelf in self._shelves.values() if shelf.ready]
            oldest = min(others, key=lambda shelf: shelf.used_at, default=chosen)
            if oldest is chosen or oldest.used_at >= chosen.used_at:
                return None
            oldest.wanted = len(oldest.ready) - 1
            self._bury(oldest.ready.popleft())
        return chosen

    def _has_room(self) -> bool:
        """Whether one more may be ready, if it takes no more memory than the largest there is."""
        idle = [sandbox for shelf in self._shelves.values() for sandbox in shelf.ready]
        used = [sandbox.memory_bytes() for sandbox in idle]
        expected = sum(used) + max(used, default=0)
        count = len(idle)
        if self._blanks is not None:
            count += self._blanks.ready
            expected += self._blanks.memory_bytes()
        if count >= self._settings.pool_ready:
            return False
        return expected <= self._settings.pool_memory_mb * MIB

    def _drain(self) -> float | None:
        """Empty what is not used any more. Returns the seconds until there may be more to do."""
        now, keep = asyncio.get_running_loop().time(), self._settings.pool_idle_seconds
        for kind, shelf in list(self._shelves.items()):
            if now - shelf.used_at >= keep and not shelf.waiting:
                self._empty(shelf)
                del self._shelves[kind]
        if now - self._used_at >= keep:
            self._may_make_blanks = False
            while self._blanks is not None and self._blanks.ready:
                self._blanks.drop()
        used = [shelf.used_at for shelf in self._shelves.values()]
        if self._blanks is not None and self._blanks.ready:
            used.append(self._used_at)
        return max(keep - (now - min(used)), 0.001) if used else None

    def _empty(self, shelf: Shelf) -> None:
        while shelf.ready:
            self._bury(shelf.ready.popleft())

    def _bury(self, sandbox: IdleSandbox) -> None:
        task = asyncio.get_running_loop().create_task(sandbox.destroy())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


class PooledSandbox:
    """A sandbox of a :class:`PooledBackend`, taken apart off its caller's path."""

    def __init__(self, sandbox: Sandbox, pool: PooledBackend) -> None:
        self._sandbox = sandbox
        self._pool = pool
        self._is_destroyed = False
        self._end_head_start = pool.give_head_start()

    @property
    def id(self) -> str:
        return self._sandbox.id

    @property
    def isolation(self) -> Isolation:
        return self._sandbox.isolation

    @property
    def layers(self) -> tuple[str, ...]:
        return self._sandbox.layers

    async def call(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> InvocationResult:
        try:
            return await self._sandbox.call(inputs, context, services)
        finally:
            self._end_head_start()

    async def outputs_descriptor(self) -> int:
        return await self._sandbox.outputs_descriptor()

    async def destroy(self) -> None:
        if not self._is_destroyed:
            self._is_destroyed = True
            self._end_head_start()
            await self._pool.retire(self._sandbox)
