"""One sandbox of level ``sandbox``: from ready, through its one call, to gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swarm.kernel.errors import SandboxUnavailable, SwarmError
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import Settings
from swarm.sandbox.egress.proxy import EgressProxy
from swarm.sandbox.linux.cgroups import Cgroup
from swarm.sandbox.linux.channel import Channel
from swarm.sandbox.linux.remedies import unavailable
from swarm.sandbox.linux.watchdog import (
    IDLE_INTERVAL_SECONDS,
    Watchdog,
    cpu_seconds_of,
    processes_of,
)
from swarm.sandbox.linux.zygote_client import (
    Ended,
    HandlerEnd,
    SpawnedProcess,
    Zygote,
    close_all,
    is_connected,
)
from swarm.sandbox.ports import (
    CallContext,
    GuestServices,
    InvocationResult,
    Isolation,
    ResourceUsage,
    SandboxRequest,
)
from swarm.sandbox.session import GuestSession
from swarm.sandbox.verdict import Ending, conclude, status_text
from swarm.sandbox.wire import Answer

_EXIT_GRACE_SECONDS = 0.2
"""How long a handler that has answered may take to exit before it is killed, and init after it."""
_LAST_WORDS_SECONDS = 10.0
"""How long the host may take to read what a sandbox sent before its end."""


@dataclass(slots=True)
class Parts:
    """What a sandbox is made of."""

    request: SandboxRequest
    settings: Settings
    zygote: Zygote
    session: GuestSession
    channel: Channel
    group: Cgroup | None
    layers: tuple[str, ...]
    niceness: int = 0
    """By how much its processes stand back until it is called."""
    process: SpawnedProcess | None = None


class NamespaceSandbox:
    """See :class:`swarm.sandbox.ports.Sandbox`."""

    isolation = Isolation.SANDBOX

    def __init__(
        self, sandbox_id: str, parts: Parts, on_destroyed: Callable[[NamespaceSandbox], None]
    ) -> None:
        self.id = sandbox_id
        self.layers = parts.layers
        self._parts = parts
        self._on_destroyed = on_destroyed
        self._descriptors: list[int] = []
        self._proxy: EgressProxy | None = None
        self._watchdog: Watchdog | None = None
        self._out_of_memory: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_called = False
        self._is_killed = False
        self._killing: asyncio.Future[Ended] | None = None
        self._building_cpu_seconds = 0.0
        self._killed_cpu_seconds = 0.0
        self._ending: asyncio.Task[Ended] | None = None
        self._is_destroyed = False

    async def become_ready(self) -> None:
        """Wait until every layer holds.

        Raises:
            SandboxUnavailable: one of them does not.
        """
        process = self._process
        first = self._parts.channel.first
        waited: list[asyncio.Future[Any]] = [first, process.refused, process.ended]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if process.refused.done():
            raise process.refused.result()
        message, self._descriptors = await self._first_message()
        if message["event"] != "ready":
            raise unavailable(message["layer"], message["errno"], message["detail"])
        self._building_cpu_seconds = message["cpu_seconds"]
        if self._parts.request.network:
            listener = self._descriptors.pop()
            self._proxy = await EgressProxy.start(
                listener, self._parts.request.network, self._parts.settings
            )
        if self._parts.group is None:
            limit = self._parts.request.limits.memory_bytes
            await process.started
            self._watchdog = Watchdog(process, self._descriptors, limit)
            self._watchdog.start(self._memory_ran_out, IDLE_INTERVAL_SECONDS)

    @property
    def is_alive(self) -> bool:
        """Whether its handler lives; see :class:`swarm.sandbox.ports.IdleSandbox`."""
        if self._is_called or self._is_destroyed or self._process.handler_ended.done():
            return False
        if not self._parts.zygote.is_alive:
            return False  # It is being killed.
        wire = self._parts.session.wire_descriptor
        return wire >= 0 and is_connected(wire)

    def memory_bytes(self) -> int:
        """Memory charged to its cgroup, else what the watchdog saw last."""
        if self._parts.group is not None:
            return self._parts.group.used_memory()
        return 0 if self._watchdog is None else self._watchdog.used_bytes

    @property
    def init_pid(self) -> int:
        """The host's pid of its init, -1 until it is known."""
        return self._process.init

    def processes(self) -> list[int]:
        """The host's pids of what runs in it, beside its init."""
        return processes_of(self._process)

    def wake(self) -> None:
        """Undo what :meth:`NamespaceBackend.prepare_ahead` did to the priority."""
        if self._parts.niceness:
            with contextlib.suppress(ProcessLookupError):  # It has just died; its call tells how.
                os.setpriority(os.PRIO_USER, self._process.uid, 0)

    async def call(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> InvocationResult:
        """Run the handler once.

        Once the handler has answered, nothing that it does matters any more, except to its files:
        its end is waited for by :meth:`outputs_descriptor` and :meth:`destroy`. Without an answer,
        this returns when none of its processes is left.
        """
        if self._is_called or self._is_destroyed:
            raise SwarmError("a sandbox serves one call only", where=self.id)
        self._is_called = True
        if self._proxy is not None:
            self._proxy.log_to(services)
        started = time.monotonic()
        answer, is_late = await self._await_answer(inputs, context, services)
        ended = None
        if answer is None or answer.kind == "closed":
            ended = await self._let_end(answer)
        usage = self._usage(answer, started)
        if ended is None:
            self._ending = asyncio.get_running_loop().create_task(self._let_end(answer))
        self._parts.session.drain()
        is_success = answer is not None and answer.kind is None
        ending = Ending(
            answer,
            is_late=is_late,
            is_out_of_memory=not is_success and self._is_out_of_memory(),
            status=None if self._reported is None else self._reported.status,
            loss=None if ended is None or self._is_killed else _loss(ended),
        )
        return conclude(ending, self._parts.request.limits, usage)

    async def outputs_descriptor(self) -> int:
        if self._ending is not None:
            await asyncio.shield(self._ending)
        return self._descriptors[1]

    async def destroy(self) -> None:
        if self._is_destroyed:
            return
        self._is_destroyed = True
        parts = self._parts
        self._unwatch_memory()
        # First of all: whoever lets go of them last takes the sandbox's file systems down.
        close_all(self._descriptors)
        self._descriptors.clear()
        if self._ending is not None:
            await self._ending
        elif parts.process is not None:
            await self._end()
        if self._proxy is not None:
            await self._proxy.close()
        parts.session.close()
        parts.channel.close()
        # What came with the first message, unless it was taken above.
        first = parts.channel.first.result()
        if first is not None:
            close_all(first[1])
            first[1].clear()
        if parts.group is not None:
            parts.group.remove()
        self._on_destroyed(self)

    @property
    def _process(self) -> SpawnedProcess:
        assert self._parts.process is not None
        return self._parts.process

    async def _first_message(self) -> tuple[JsonObject, list[int]]:
        """What the channel said first; the process may have ended with it unread."""
        channel = self._parts.channel
        if not channel.first.done():
            channel.drain()
        if channel.first.done() and (found := channel.first.result()) is not None:
            return found
        detail = "the sandbox died while it was built"
        raise SandboxUnavailable(detail, where="zygote", remedy="look at the kernel's log (dmesg)")

    async def _await_answer(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> tuple[Answer | None, bool]:
        """The answer, if there is one, and whether the time limit passed first."""
        request = self._parts.request
        ended = self._process.handler_ended
        call = asyncio.ensure_future(
            self._parts.session.call(request.program.entry, inputs, context.as_json(), services)
        )
        waited: list[asyncio.Future[Any]] = [call, ended, self._out_of_memory]
        self._watch_memory()
        try:
            done, _ = await asyncio.wait(
                waited,
                timeout=request.limits.timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if ended in done and not call.done():
                # The wire holds what was sent before the end, then the end itself.
                await asyncio.wait([call], timeout=_LAST_WORDS_SECONDS)
        except asyncio.CancelledError:
            await asyncio.shield(self._end())
            raise
        finally:
            if not call.done():
                call.cancel()
            self._unwatch_memory()
        is_answered = call.done() and not call.cancelled()
        return call.result() if is_answered else None, not done

    @property
    def _reported(self) -> HandlerEnd | None:
        ended = self._process.handler_ended
        return ended.result() if ended.done() else None

    async def _let_end(self, answer: Answer | None) -> Ended:
        """Wait for an end that has begun, and kill what takes its time for it."""
        process = self._process
        if answer is not None:
            await asyncio.wait([process.handler_ended], timeout=_EXIT_GRACE_SECONDS)
        if process.handler_ended.done():
            await asyncio.wait([process.ended], timeout=_EXIT_GRACE_SECONDS)
        return await self._end()

    async def _end(self) -> Ended:
        """Kill what is left and wait until it is gone."""
        process = self._process
        if not process.ended.done():
            self._is_killed = True
            if process.started.done():
                # The kernel tells the time of the handler, not of what is killed beside it.
                self._killed_cpu_seconds = cpu_seconds_of(process)
        ended = await self._parts.zygote.kill(process)
        self._parts.channel.drain()
        return ended

    def _watch_memory(self) -> None:
        """Have ``_out_of_memory`` settled when it is, by the kernel's word or by the watchdog's."""
        group, loop = self._parts.group, asyncio.get_running_loop()
        if self._watchdog is not None:
            self._watchdog.start(self._memory_ran_out)
        elif group is not None and group.oom_descriptor >= 0:
            loop.add_reader(group.oom_descriptor, self._memory_ran_out)

    def _unwatch_memory(self) -> None:
        group = self._parts.group
        if self._watchdog is not None:
            self._watchdog.stop()
        elif group is not None and group.oom_descriptor >= 0:
            asyncio.get_running_loop().remove_reader(group.oom_descriptor)

    def _memory_ran_out(self) -> None:
        self._unwatch_memory()
        if not self._out_of_memory.done():
            self._out_of_memory.set_result(None)
        if not self._is_called:
            # Nobody waits for it yet. Whoever gets it now is told that it ran out of memory.
            self._killing = asyncio.ensure_future(self._parts.zygote.kill(self._process))

    def _is_out_of_memory(self) -> bool:
        group = self._parts.group
        return self._out_of_memory.done() or (group is not None and group.oom_kills() > 0)

    def _cpu_seconds(self) -> float:
        """What was used since the sandbox was built, until now or until the end."""
        process, reported = self._process, self._reported
        if process.handler_ended.done() or process.ended.done():
            told = 0.0 if reported is None else reported.cpu_seconds
            used = max(told, self._killed_cpu_seconds)
        else:
            used = cpu_seconds_of(process)
        return max(used - self._building_cpu_seconds, 0.0)

    def _usage(self, answer: Answer | None, started: float) -> ResourceUsage:
        group = self._parts.group
        peak = group.peak_memory() if group is not None else 0
        if self._watchdog is not None:
            peak = self._watchdog.peak_bytes
        return ResourceUsage(
            wall_ms=round((time.monotonic() - started) * 1000),
            cpu_ms=round(self._cpu_seconds() * 1000),
            peak_memory_bytes=peak,
            output_bytes=answer.size if answer is not None else 0,
            log_bytes=self._parts.session.budget.received,
        )


def _loss(ended: Ended) -> str:
    if ended.status is None:
        return "the sandbox was lost: the zygote that kept it died"
    return f"the sandbox was ended from outside: it {status_text(ended.status)}"
