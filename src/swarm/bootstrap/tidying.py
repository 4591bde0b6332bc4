"""What a process that drives runs does beside: old runs and what nothing refers to go."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from swarm.bootstrap.assembly import Swarm
from swarm.bootstrap.collection import collect_unused, is_due
from swarm.bootstrap.retention import BATCH, SECONDS_PER_DAY, purge_expired
from swarm.kernel.errors import UnavailableError
from swarm.kernel.settings import Settings

PURGE_SECONDS = 3_600.0
"""How often a process that lives long looks for expired runs, at least."""
PURGES_PER_RETENTION = 4
"""How often it does within the time that runs are kept: so that where that is short, not many times
as much is kept."""


@asynccontextmanager
async def tidying(swarm: Swarm) -> AsyncIterator[None]:
    """Purge expired runs in the background while this lasts, and at least once.

    What nothing refers to is collected too, once a day and as far as it gets.
    """
    purged_once = asyncio.Event()
    task = asyncio.create_task(_purge_regularly(swarm, purged_once))
    try:
        yield
        waiting = asyncio.create_task(purged_once.wait())
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _purge_regularly(swarm: Swarm, purged_once: asyncio.Event) -> None:
    while True:
        days = swarm.settings.retention_days
        purged = await purge_expired(swarm.store, swarm.home, days) if days else []
        purged_once.set()
        if len(purged) < BATCH:
            if is_due(swarm.home, swarm.settings):
                await _collect(swarm)
            await asyncio.sleep(purge_interval(swarm.settings))


def purge_interval(settings: Settings) -> float:
    """Seconds between two looks for expired runs."""
    kept = [settings.retention_days, settings.unused_days]
    shortest = min((days for days in kept if days), default=math.inf) * SECONDS_PER_DAY
    return min(PURGE_SECONDS, max(1.0, shortest / PURGES_PER_RETENTION))


async def _collect(swarm: Swarm) -> None:
    try:
        await collect_unused(swarm.store, swarm.home, swarm.settings, swarm.shared, if_due=True)
    except UnavailableError:
        if swarm.shared is None:
            raise
        # A bucket or a server that is away is no reason to stop what drives runs: what was to be
        # deleted is noted, and deleted the next time. `swarm purge` tells.
