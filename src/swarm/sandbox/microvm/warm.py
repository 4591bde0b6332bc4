"""Machines restored ahead: for a package that is called again and again, the next one waits.

Each still serves one invocation only. One is made after an invocation has ended, so that it takes
nothing from a call, and only for a request that was made before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from swarm.kernel.errors import SwarmError
from swarm.kernel.json import dumps
from swarm.sandbox.microvm.sandbox import MicrovmSandbox
from swarm.sandbox.ports import SandboxRequest

_REMEMBERED = 256
_logger = logging.getLogger(__name__)

Make = Callable[[SandboxRequest], Awaitable[MicrovmSandbox]]


class WarmMachines:
    """What waits in one process.

    Args:
        limit: machines that may wait at once.
        seconds: how long one waits.
        make: restores a machine.
    """

    def __init__(self, limit: int, seconds: float, make: Make) -> None:
        self._limit = limit
        self._seconds = seconds
        self._make = make
        self._waiting: OrderedDict[str, MicrovmSandbox] = OrderedDict()
        self._asked: OrderedDict[str, int] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._expiring: dict[str, asyncio.TimerHandle] = {}
        self._dropping: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def take(self, request: SandboxRequest) -> MicrovmSandbox | None:
        """A machine that waits for this very request, if there is one that lives.

        One that is being made is waited for: it is nearer than another begun now.
        """
        if self._limit == 0 or request.inputs or request.network:
            return None
        key = _key(request)
        self._asked[key] = self._asked.pop(key, 0) + 1
        while len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
        if key not in self._waiting and key in self._tasks:
            await asyncio.wait([self._tasks[key]])
        sandbox = self._waiting.pop(key, None)
        if sandbox is None:
            return None
        self._expiring.pop(key).cancel()
        if sandbox.is_alive:
            return sandbox
        self._drop(sandbox)
        return None

    def refill(self, request: SandboxRequest) -> None:
        """An invocation of ``request`` has ended: have the next machine made."""
        if self._is_closed or self._limit == 0 or request.inputs or request.network:
            return
        key = _key(request)
        is_there = key in self._waiting or key in self._tasks
        if is_there or self._asked.get(key, 0) < 2 or len(self._tasks) >= self._limit:
            return
        task = asyncio.get_running_loop().create_task(self._fill(key, request))
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def close(self) -> None:
        """Destroy what waits; nothing more is made."""
        self._is_closed = True
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for key in list(self._waiting):
            self._expire(key)
        await asyncio.gather(*self._dropping)

    async def _fill(self, key: str, request: SandboxRequest) -> None:
        try:
            sandbox = await self._make(request)
        except SwarmError as error:
            # Whoever asks next makes one of his own, and is told.
            _logger.debug("no machine could be restored ahead: %s", error)
            return
        while len(self._waiting) >= self._limit:
            self._expire(next(iter(self._waiting)))
        self._waiting[key] = sandbox
        loop = asyncio.get_running_loop()
        self._expiring[key] = loop.call_later(self._seconds, self._expire, key)

    def _expire(self, key: str) -> None:
        self._expiring.pop(key).cancel()
        self._drop(self._waiting.pop(key))

    def _drop(self, sandbox: MicrovmSandbox) -> None:
        task = asyncio.get_running_loop().create_task(sandbox.destroy())
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)


def _key(request: SandboxRequest) -> str:
    """Equal for requests that the same machine can serve."""
    program = request.program
    return dumps(
        {
            "package": [program.runtime, program.digest, str(program.package), *program.entry],
            "dependencies": str(program.environment),
            "limits": repr(request.limits),
            "environment": dict(request.environment),
        }
    )
