"""One sandbox of level ``microvm``: a restored machine, good for one call."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from swarm.kernel.errors import SandboxUnavailable, SwarmError
from swarm.kernel.json import JsonObject
from swarm.sandbox.linux.cgroups import Cgroup
from swarm.sandbox.linux.watchdog import memory_of
from swarm.sandbox.microvm.agent.frames import FILE
from swarm.sandbox.microvm.agent.machine import SEED_BYTES
from swarm.sandbox.microvm.handover import Handover, HandoverError
from swarm.sandbox.microvm.monitors import Machine
from swarm.sandbox.microvm.wiring import ProxyRelay, StreamSession
from swarm.sandbox.ports import (
    CallContext,
    GuestServices,
    InvocationResult,
    Isolation,
    Limits,
    ResourceUsage,
    SandboxRequest,
)
from swarm.sandbox.verdict import Ending, conclude
from swarm.sandbox.wire import Answer

_START_SECONDS: Final = 30.0
_EXIT_GRACE_SECONDS: Final = 1.0
"""How long a handler that has answered may take to exit before it is killed."""
_HANDOVER_SECONDS: Final = 60.0
"""How long a machine may take to hand over its files and last words after that."""
_FILE_EVENTS: Final = frozenset({"folder", "file", "link", "other"})
_CONNECTION_EVENTS: Final = frozenset({"connect", "close", "credit"})
_MARGIN_FILES: Final = 16


@dataclass(slots=True)
class Parts:
    """What a sandbox is made of."""

    request: SandboxRequest
    machine: Machine
    folder: Path
    """The host's folder of this sandbox, removed with it."""
    outputs: int
    """Descriptor of the folder in it that gets the files handed out."""
    layers: tuple[str, ...]
    variables: Mapping[str, str]
    """The handler's environment."""
    relay: ProxyRelay | None = None
    group: Cgroup | None = None
    niceness: int = 0


class MicrovmSandbox:
    """See :class:`swarm.sandbox.ports.Sandbox`."""

    isolation = Isolation.MICROVM

    def __init__(
        self, sandbox_id: str, parts: Parts, when_gone: Callable[[MicrovmSandbox], None]
    ) -> None:
        self.id = sandbox_id
        self.layers = parts.layers
        self._parts = parts
        self._session = StreamSession(parts.machine.stream, self._limits)
        self._handover = Handover(
            parts.outputs,
            self._limits.output_files_bytes,
            self._limits.output_files + _MARGIN_FILES,
        )
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[JsonObject] = loop.create_future()
        """What the agent said last."""
        self._services: GuestServices | None = None
        self._refused: str | None = None
        """Why files that the guest handed out were not taken."""
        self._cpu_seconds = 0.0
        self._ending: asyncio.Task[None] | None = None
        """The machine's end, when the call's result does not wait for it."""
        self._when_gone = when_gone
        self._is_called = False
        self._is_destroyed = False
        parts.machine.stream.on_frames(FILE, self._take_file)
        parts.machine.stream.on_messages(self._take_message)

    def rehearse(self) -> None:
        """Have the machine go through a call of nobody's, so that emulated code is translated."""
        self._parts.machine.stream.send_control(op="rehearse")

    def start(self) -> None:
        """Tell the machine what time it is, give it entropy of its own, let the handler load."""
        parts = self._parts
        parts.machine.stream.send_control(
            op="start",
            time_ns=time.time_ns(),
            seed=secrets.token_hex(SEED_BYTES),
            inputs=bool(parts.request.inputs),
            environment=dict(parts.variables),
        )

    async def become_ready(self) -> None:
        """Wait until the machine goes on where its snapshot was taken.

        Raises:
            SandboxUnavailable: it does not answer.
        """
        if not await self._has_started(_START_SECONDS):
            raise SandboxUnavailable(
                f"the virtual machine cannot be restored: {self._loss()}",
                where="microvm",
                remedy="look at the kernel's log (dmesg) for a killed QEMU",
            )

    async def call(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> InvocationResult:
        """Run the handler once.

        When this returns, its files are here and nothing more is heard of the machine: it was told
        to end, or is being killed, which :meth:`outputs_descriptor` and :meth:`destroy` wait for.
        """
        if self._is_called or self._is_destroyed:
            raise SwarmError("a sandbox serves one call only", where=self.id)
        self._is_called = True
        self._services = services
        if self._parts.relay is not None:
            self._parts.relay.log_to(services)
        started = time.monotonic()
        process = self._parts.machine.process
        try:
            answer, is_late = await self._await_answer(inputs, context, services)
        except BaseException:
            await asyncio.shield(self._end())
            raise
        if self._ended.done():
            self._cpu_seconds = process.cpu_seconds()
            self._ending = asyncio.get_running_loop().create_task(self._end())
        else:
            await asyncio.shield(self._end())
            self._cpu_seconds = process.cpu_seconds()
        self._session.drain()
        return self._conclude(answer, is_late, started)

    async def outputs_descriptor(self) -> int:
        if self._ending is not None:
            await asyncio.shield(self._ending)
        return self._parts.outputs

    async def destroy(self) -> None:
        if self._is_destroyed:
            return
        self._is_destroyed = True
        parts = self._parts
        await (self._ending or self._end())
        if parts.relay is not None:
            await parts.relay.close()
        self._session.close()
        self._handover.close()
        os.close(parts.outputs)
        await asyncio.to_thread(shutil.rmtree, parts.folder, ignore_errors=True)
        if parts.group is not None:
            parts.group.remove()
        self._when_gone(self)

    @property
    def is_alive(self) -> bool:
        """Whether the machine still runs and can be called."""
        return not (self._is_called or self._is_destroyed) and not (
            self._parts.machine.stream.closed.done()
        )

    def memory_bytes(self) -> int:
        """Memory charged to its cgroup, else its process's share of what it maps."""
        if self._parts.group is not None:
            return self._parts.group.used_memory()
        return memory_of(self._parts.machine.process.pid)

    def wake(self) -> None:
        """Undo what :meth:`MicrovmBackend.prepare_ahead` did to the priority."""
        if self._parts.niceness:
            self._parts.machine.process.wake()

    @property
    def _limits(self) -> Limits:
        return self._parts.request.limits

    async def _await_answer(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> tuple[Answer | None, bool]:
        """The answer, if there is one, and whether the time limit passed first.

        An answer counts once the handler's files are here too.
        """
        stream = self._parts.machine.stream
        entry = self._parts.request.program.entry
        answer = self._session.call(entry, inputs, context.as_json(), services)
        gone: list[asyncio.Future[Any]] = [self._ended, stream.closed]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.timeout_seconds
        # What it is told first and the call go together: one is not waited for to send the other.
        patience = min(_START_SECONDS, self._limits.timeout_seconds)
        if not await self._has_started(patience):
            return None, patience < _START_SECONDS and not stream.closed.done()
        done, _ = await asyncio.wait(
            [answer, *gone],
            timeout=max(deadline - loop.time(), 0),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not done:
            return None, True
        if not (self._ended.done() or stream.closed.done()):
            await asyncio.wait(
                gone, timeout=_EXIT_GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        if not (self._ended.done() or stream.closed.done()):
            stream.send_control(op="end")
            await asyncio.wait(gone, timeout=_HANDOVER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None, False

    async def _has_started(self, seconds: float) -> bool:
        waited: list[asyncio.Future[Any]] = [self._started, self._parts.machine.stream.closed]
        await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return self._started.done()

    async def _end(self) -> None:
        await self._parts.machine.kill()

    def _conclude(self, answer: Answer | None, is_late: bool, started: float) -> InvocationResult:
        said = self._ended.result() if self._ended.done() else {}
        status = said.get("status")
        usage = ResourceUsage(
            wall_ms=round((time.monotonic() - started) * 1000),
            cpu_ms=round(self._cpu_seconds * 1000),
            peak_memory_bytes=_count(said.get("peak_memory_bytes")),
            output_bytes=answer.size if answer is not None else 0,
            log_bytes=self._session.budget.received,
        )
        if self._refused is not None:
            answer = Answer(kind="output_too_large", message=self._refused)
        elif not said and not is_late and answer is not None and answer.kind is None:
            answer = None  # It came, but the files that belong to it did not.
        loss = None if said or is_late else self._loss()
        ending = Ending(
            answer,
            is_late=is_late,
            is_out_of_memory=_count(said.get("oom_kills")) > 0,
            status=status if isinstance(status, int) and 0 <= status <= 0xFFFF else None,
            loss=loss,
        )
        return conclude(ending, self._limits, usage)

    def _loss(self) -> str:
        closed = self._parts.machine.stream.closed
        return closed.result() if closed.done() else "the virtual machine does not answer"

    def _take_message(self, message: JsonObject) -> None:
        event = message.get("event")
        if event == "started" and not self._started.done():
            self._started.set_result(None)
        elif event == "wire_closed":
            self._session.wire_closed()
        elif event in _FILE_EVENTS:
            self._take_files(lambda: self._handover.take_message(message))
        elif event in _CONNECTION_EVENTS and self._parts.relay is not None:
            self._parts.relay.take_message(message)
        elif event == "ended" and not self._ended.done():
            self._session.wire_closed()
            self._ended.set_result(message)
            for name in self._handover.skipped:
                self._log(f"{name} is no file, folder or link; it was not handed out")
        else:
            self._parts.machine.stream.break_off("the virtual machine sent an unknown message")

    def _take_file(self, data: bytes) -> None:
        self._take_files(lambda: self._handover.take_content(data))

    def _take_files(self, take: Callable[[], None]) -> None:
        try:
            take()
        except HandoverError as error:
            self._refused = f"the files handed out cannot be taken: {error}"
            self._parts.machine.stream.break_off(self._refused)
        except OSError as error:
            self._refused = f"the files handed out cannot be kept: {error.strerror}"
            self._parts.machine.stream.break_off(self._refused)

    def _log(self, text: str) -> None:
        if self._services is not None:
            self._services.log("log", "warning", text)


def _count(value: object) -> int:
    """A number that a guest says, made harmless."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return min(max(int(value), 0), 2**53) if is_number and isinstance(value, int) else 0
