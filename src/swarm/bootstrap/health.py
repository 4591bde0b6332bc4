"""Whether a worker lives and is ready: what it answers to whoever looks after it.

A worker that is told a path (``health_socket``) listens there, and answers two questions (see
:mod:`swarm.dispatch.health`):

* ``live``: the answer alone says that its event loop turns; whoever gets none may restart it.
* ``ready``: it takes runs, which it does between having joined the other hosts and being told to
  stop, while its database answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Final

from swarm import __version__
from swarm.bootstrap.assembly import Swarm
from swarm.bootstrap.supervisor import Supervisor
from swarm.dispatch.health import Probe, listen
from swarm.kernel.errors import SwarmError, UnavailableError
from swarm.kernel.json import JsonObject, dump_bytes

ANSWER_SECONDS: Final = 3.0
"""How long the database may take to answer before the worker calls itself not ready, and how long
a probe may take to ask."""
MAX_QUESTION_BYTES: Final = 64


class WorkerState(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Health:
    """One worker's state, told to the service manager and to whoever asks at its socket."""

    def __init__(self, swarm: Swarm, supervisor: Supervisor) -> None:
        self._swarm = swarm
        self._supervisor = supervisor
        self.state = WorkerState.STARTING

    def ready(self) -> None:
        """It has joined the other hosts and takes runs."""
        self.state = WorkerState.READY
        self._supervisor.tell("READY=1", "STATUS=takes runs")

    def draining(self) -> None:
        """It takes no more runs, and ends once those on their way are dealt with."""
        self.state = WorkerState.DRAINING
        # Who has told it to stop knows; no run may suffer because the message cannot be taken.
        with suppress(UnavailableError):
            self._supervisor.tell("STOPPING=1", "STATUS=finishes or leaves the runs on their way")

    async def answer(self, probe: Probe) -> JsonObject:
        """What the worker says of itself."""
        reason = None if probe is Probe.LIVE else await self._reason_not_ready()
        return {
            "ok": reason is None,
            "state": self.state.value,
            "reason": reason,
            "runs": len(self._swarm.runs.driving),
            "version": __version__,
        }

    async def _reason_not_ready(self) -> str | None:
        if self.state is not WorkerState.READY:
            return f"it is {self.state.value}"
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._swarm.store.next_wake()
        except TimeoutError:
            return f"the database has not answered for {ANSWER_SECONDS:g} s"
        except SwarmError as error:
            return f"the database does not answer: {error.message}"
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question; a client that asks nothing known gets no answer."""
        # Whoever hangs up early has nothing to be told.
        with suppress(OSError, TimeoutError):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    question = await reader.readline()
                if (asked := question.decode(errors="replace").strip()) in list(Probe):
                    writer.write(dump_bytes(await self.answer(Probe(asked))) + b"\n")
                    await writer.drain()
            finally:
                writer.close()


@asynccontextmanager
async def watched(swarm: Swarm, *, is_service: bool = True) -> AsyncIterator[Health]:
    """A worker's health while this lasts, at ``health_socket`` if that is set.

    With systemd's watchdog on (``WatchdogSec=``), it is told as long as the event loop turns.

    Args:
        swarm: what the worker works on.
        is_service: whether somebody looks after it. Nobody does after one that ends when it is
            idle, which has the settings and variables of whatever process has started it.

    Raises:
        UnavailableError: the socket cannot be made, or the service manager not be told.
    """
    supervisor = Supervisor.from_environment() if is_service else Supervisor()
    health = Health(swarm, supervisor)
    path = swarm.settings.health_socket if is_service else None
    server = None
    if path is not None:
        listener = await asyncio.to_thread(listen, path.expanduser())
        server = await asyncio.start_unix_server(
            health.serve, sock=listener, limit=MAX_QUESTION_BYTES
        )
    beating = asyncio.create_task(_beat(supervisor))
    try:
        yield health
    finally:
        beating.cancel()
        if server is not None and path is not None:
            server.close()
            path.expanduser().unlink(missing_ok=True)


async def _beat(supervisor: Supervisor) -> None:
    while supervisor.watchdog_seconds:
        # One that cannot be told will find out by the silence.
        with suppress(UnavailableError):
            supervisor.tell("WATCHDOG=1")
        await asyncio.sleep(supervisor.watchdog_seconds / 3)
