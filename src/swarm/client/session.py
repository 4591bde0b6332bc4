"""What a client and the handles that it gives share: the open home."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal, TypeAlias, get_args

from msgspec.structs import replace

from swarm.bootstrap.assembly import Swarm
from swarm.bootstrap.tidying import tidying
from swarm.client.values import FileRoom, Taking, with_files
from swarm.definitions.fields import FieldDefinition
from swarm.kernel.errors import ConflictError, InvalidError, UnavailableError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunRecord, StepRecord

Drive: TypeAlias = Literal["here", "worker"]
"""Which process drives the runs that a client starts: its own, or a worker."""


class Session:
    """An open home in one event loop."""

    def __init__(self, swarm: Swarm, drive: Drive) -> None:
        """Open in the running event loop, until :meth:`close`."""
        self._swarm: Swarm | None = swarm
        self._drive = drive
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[RunRecord]] = set()
        self._tidying = AsyncExitStack()
        self._tidies = False

    @property
    def swarm(self) -> Swarm:
        """The open home.

        Raises:
            UnavailableError: the client is closed.
            ConflictError: this is not the event loop in which it was opened.
        """
        if self._swarm is None:
            raise closed()
        if asyncio.get_running_loop() is not self._loop:
            raise ConflictError(
                "the client was opened in another event loop",
                remedy="open one in this loop, or use swarm.SyncClient, which any thread may call",
            )
        return self._swarm

    async def close(self) -> None:
        """Let what is being started come to its place; nothing can be asked from now on."""
        await asyncio.gather(*self._starting, return_exceptions=True)
        self._swarm = None
        await self._tidying.aclose()

    async def tidy(self) -> None:
        """Purge what has expired from now on, as every process does that drives runs."""
        swarm = self.swarm
        if not self._tidies:
            self._tidies = True
            await self._tidying.enter_async_context(tidying(swarm))

    async def drive(self, run: RunRecord) -> RunRecord:
        """Have a run driven, as the client was told to."""
        runs = self.swarm.runs
        if self._drive == "worker":
            await runs.start_detached(run)
        else:
            await self.tidy()
            await runs.adopt(run.id)
        return run

    async def finish(self, task: asyncio.Task[RunRecord]) -> RunRecord:
        """Wait for a run's start, which goes on even if the caller is cancelled: a run that is
        recorded must not be left without a driver."""
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return await asyncio.shield(task)

    async def taken(
        self, given: Mapping[str, object] | None, declared: tuple[FieldDefinition, ...]
    ) -> tuple[JsonObject, dict[str, str]]:
        """Inputs as JSON, and the directories that they refer to; see :class:`Taking`."""
        taking = Taking(self.swarm.artifacts)
        return await taking.inputs(given or {}, declared), taking.mounts

    async def shown(self, stored: JsonValue, mounts: Mapping[str, str] | None = None) -> Any:
        """A value that the journal holds, as programs see it: whole, with its files."""
        swarm = self.swarm
        room = FileRoom(swarm.artifacts, swarm.home, mounts or {})
        return with_files(await self.loaded(stored), room)

    async def loaded(self, stored: JsonValue) -> JsonValue:
        """A value that the journal holds, read from its artifact where it is large."""
        return await self.swarm.runs.value(stored)

    async def whole_run(self, run: RunRecord) -> RunRecord:
        """The record with its large values."""
        return replace(
            run,
            inputs=await self.loaded(run.inputs),
            outputs=await self.loaded(run.outputs),
            variables=await self.loaded(run.variables),
            trigger_data=await self.loaded(run.trigger_data),
        )

    async def whole_steps(self, steps: list[StepRecord]) -> list[StepRecord]:
        """The records with their large values."""
        value = self.swarm.runs.value
        return [
            replace(step, inputs=await value(step.inputs), outputs=await value(step.outputs))
            for step in steps
        ]


def closed() -> UnavailableError:
    """The error of a client that is not open."""
    return UnavailableError(
        "the client is not open", remedy="use it inside `async with swarm.Client() as client:`"
    )


def checked_drive(given: Drive) -> Drive:
    """What was given.

    Raises:
        InvalidError: it is neither.
    """
    if given not in get_args(Drive):
        raise InvalidError(f"drive={given!r} is unknown", remedy="give 'here' or 'worker'")
    return given


def isolation_level(given: Isolation | str) -> Isolation:
    """The level by its name.

    Raises:
        InvalidError: there is no such level.
    """
    try:
        return Isolation(given)
    except ValueError:
        raise InvalidError(
            f"there is no isolation level {given!r}", remedy=f"one of: {', '.join(Isolation)}"
        ) from None
