"""SIGINT and SIGTERM for commands that have something to clean up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def cancelled_by_signals() -> Iterator[None]:
    """While this lasts, SIGINT and SIGTERM cancel the current task, which then cleans up."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("signals are handled only within a task")
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
