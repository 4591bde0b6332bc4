"""The load of a soak: runs that are asked for as due, and what became of each.

The load is open: runs are due by a Poisson process, whatever became of those before, and latency
counts from when a run was due. So a system that falls behind is not spared (no coordinated
omission). What a run took is told by the database: when its first step began, by the worker's
clock, and when the transaction that ended it was committed (``track_commit_timestamp``), both of
this machine.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection
from soak_runs import EVENT, KINDS, Kind

from swarm.bootstrap.assembly import Swarm
from swarm.kernel.clock import from_text
from swarm.kernel.errors import SwarmError

LOOK_SECONDS = 0.5
"""Between looks which runs have ended, while the load is open."""
BURST_LOOK_SECONDS = 0.05
DRAIN_SECONDS = 60.0
"""What is left of the load may take so long after its end; what has not ended then is lost."""
MAX_TOLD = 20
"""Wrong runs that are told one by one."""
_LARGEST = 10**9
_ENDED = """
SELECT run.id, run.status, run.outputs, first.started_at,
       extract(epoch FROM pg_xact_commit_timestamp(run.xmin))::float8
FROM workflow_runs AS run
LEFT JOIN LATERAL (
    SELECT step.started_at FROM step_executions AS step WHERE step.run_id = run.id
    ORDER BY step.rowid LIMIT 1
) AS first ON TRUE
WHERE run.id = ANY(%s) AND run.completed_at IS NOT NULL
"""


@dataclass(frozen=True)
class Asked:
    """A run that was asked for."""

    kind: Kind
    value: int
    due: float
    """Seconds since 1970."""
    place: asyncio.Semaphore | None
    """What it occupies until it has ended."""


@dataclass(frozen=True)
class Ended:
    """A run that has ended as it had to."""

    kind: str
    due: float
    """Seconds since 1970."""
    start_ms: float
    """From when it was due until its first step began."""
    end_ms: float
    """From when it was due until its end was committed, without what it waits for by its nature."""


@dataclass
class Account:
    """What became of the runs that were asked for."""

    asked: int = 0
    late_ms: list[float] = field(default_factory=list)
    """How much later than due the generator began to ask, of each."""
    ended: list[Ended] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Runs that were refused or ended otherwise than they had to, the first of them."""
    wrong_count: int = 0
    lost: int = 0

    def complain(self, text: str) -> None:
        self.wrong_count += 1
        if len(self.wrong) < MAX_TOLD:
            self.wrong.append(text)


class Load:
    """Asks for runs, prompts those that wait for it, and checks how they end."""

    def __init__(
        self, swarm: Swarm, database: AsyncConnection[Any], rng: random.Random, stop: asyncio.Event
    ) -> None:
        self._swarm = swarm
        self._database = database
        self._rng = rng
        self.stop = stop
        self._outstanding: dict[str, Asked] = {}
        self._asking = 0
        self._number = 0
        self.account = Account()

    @property
    def unfinished(self) -> int:
        return len(self._outstanding) + self._asking

    async def burst(self, places: int, warm_up: float, seconds: float) -> float:
        """Runs per second that are ended while ``places`` are always under way, after a warm-up."""
        self.account = account = Account()
        free = asyncio.Semaphore(places)
        begun = time.monotonic()
        counts = []
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look_regularly(BURST_LOOK_SECONDS))
            for span in (warm_up, seconds):
                end = time.monotonic() + span
                while time.monotonic() < end and not self.stop.is_set():
                    await free.acquire()
                    group.create_task(self._ask(time.time(), free))
                counts.append((time.monotonic() - begun, len(account.ended)))
            await cancelled(looking)
            await self._drain()
        (early, before), (late, after) = counts
        return (after - before) / (late - early) if late > early else 0.0

    async def offer(self, rate: float, seconds: float, on_begin: Callable[[], None]) -> float:
        """Ask for ``rate`` runs per second for so long; gives the seconds that it lasted."""
        self.account = Account()
        begun, zero = time.monotonic(), time.time()
        on_begin()
        due = 0.0
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look_regularly(LOOK_SECONDS))
            while (due := due + self._rng.expovariate(rate)) < seconds:
                if not await self._until(begun + due):
                    break
                group.create_task(self._ask(zero + due, None))
            else:
                await self._until(begun + seconds)
            lasted = min(seconds, time.monotonic() - begun)
            await cancelled(looking)
            await self._drain()
        return lasted

    async def _until(self, moment: float) -> bool:
        """Wait until then; False if it is to stop."""
        pause = moment - time.monotonic()
        if pause > 0 and not self.stop.is_set():
            try:
                async with asyncio.timeout(pause):
                    await self.stop.wait()
            except TimeoutError:
                pass
        return not self.stop.is_set()

    # -- one run ---------------------------------------------------------------------------------

    async def _ask(self, due: float, place: asyncio.Semaphore | None) -> None:
        (kind,) = self._rng.choices(KINDS, [kind.weight for kind in KINDS])
        value = self._rng.randrange(_LARGEST)
        self._number += 1
        name = str(self._number)
        account = self.account
        account.asked += 1
        account.late_ms.append((time.time() - due) * 1000)
        self._asking += 1
        try:
            run = await self._swarm.runs.create(kind.request(name, value))
            self._outstanding[run.id] = Asked(kind, value, due, place)
            await self._swarm.runs.start_detached(run)
        except SwarmError as error:
            account.complain(f"{kind.name} {name} was refused: {error}")
            if place is not None:
                place.release()
            return
        finally:
            self._asking -= 1
        if kind.prompt:
            await self._prompt(kind, name, run.id, due)

    async def _prompt(self, kind: Kind, name: str, run_id: str, due: float) -> None:
        await asyncio.sleep(max(0.0, due + kind.waits_seconds - time.time()))
        try:
            if kind.prompt == "event":
                await self._swarm.runs.send_event(EVENT, name, {"name": name}, None)
            else:
                await self._swarm.runs.cancel(run_id)
        except SwarmError as error:
            self.account.complain(f"{kind.prompt} of {kind.name} {name} was refused: {error}")

    # -- what became of them ---------------------------------------------------------------------

    async def _look_regularly(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._look()

    async def _look(self) -> None:
        ids = list(self._outstanding)
        if not ids:
            return
        cursor = await self._database.execute(_ENDED, (ids,))
        for run_id, status, outputs, first_began, committed in await cursor.fetchall():
            asked = self._outstanding.pop(run_id)
            if asked.place is not None:
                asked.place.release()
            self._check(run_id, asked, status, outputs, first_began, committed)

    def _check(
        self,
        run_id: str,
        asked: Asked,
        status: str,
        outputs: str | None,
        first_began: str | None,
        committed: float,
    ) -> None:
        kind, given = asked.kind, None if outputs is None else json.loads(outputs)
        if status != kind.status or (given or None) != kind.outputs(asked.value):
            self.account.complain(
                f"{kind.name} {run_id} ended as {status} with {outputs}; it had to as "
                f"{kind.status} with {kind.outputs(asked.value)}"
            )
            return
        began = committed if first_began is None else from_text(first_began).timestamp()
        self.account.kinds[kind.name] += 1
        self.account.ended.append(
            Ended(
                kind.name,
                asked.due,
                (began - asked.due) * 1000,
                (committed - asked.due - kind.waits_seconds) * 1000,
            )
        )

    async def _drain(self) -> None:
        """Wait until all have ended; what has not is lost."""
        end = time.monotonic() + DRAIN_SECONDS
        while self.unfinished and time.monotonic() < end:
            await self._look()
            await asyncio.sleep(BURST_LOOK_SECONDS)
        for run_id, asked in self._outstanding.items():
            self.account.lost += 1
            self.account.complain(f"{asked.kind.name} {run_id} has not ended")
        self._outstanding.clear()


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
