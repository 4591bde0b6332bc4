"""One writer at a time for what is made once and shared by every process of a home."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from swarm.kernel.errors import UnavailableError

Result = TypeVar("Result")

RETRY_SECONDS = 0.05
"""Pause between two tries for a lock. Trying keeps the wait cancellable, which a thread blocked in
the kernel is not, and ties up no thread."""


@asynccontextmanager
async def exclusive(path: Path) -> AsyncIterator[None]:
    """Hold the lock file ``path``; the kernel lets go of it should this process die.

    Raises:
        UnavailableError: the lock file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnavailableError(
            f"the lock cannot be made: {error.strerror}",
            where=str(path),
            remedy="make the home writable",
        ) from None
    try:
        while not _try_lock(descriptor):  # noqa: ASYNC110 - another process holds it
            await asyncio.sleep(RETRY_SECONDS)
        yield
    finally:
        os.close(descriptor)


async def run_to_end(function: Callable[..., Result], *arguments: object) -> Result:
    """Run ``function`` in a thread and wait for it even when cancelled.

    A thread cannot be stopped: whoever holds a lock must not let go of it while one still writes.
    """
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at; the cancellation is what counts
        raise


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
