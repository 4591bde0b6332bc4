"""What others wait for, and so has to be done though the database fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from swarm.kernel.errors import DatabaseError

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


async def patiently(work: Callable[[], Awaitable[object]], is_over: Callable[[], bool]) -> None:
    """Do some work, again and again while the database fails, unless this process ends.

    Args:
        work: may be done several times.
        is_over: whether it is left to others from now on.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            await work()
        except DatabaseError:
            if is_over():
                return
        else:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
