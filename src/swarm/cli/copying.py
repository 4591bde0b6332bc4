"""Progress of long copying, for people who watch: a line on the terminal, gone when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO

from swarm.cli.render.values import duration, size
from swarm.cli.terminal import stderr

FIRST_SECONDS = 1.0
"""What is done by then is not told of."""
EACH_SECONDS = 0.5
ERASE = "\r\x1b[K"


class CountedFile:
    """A binary file that counts the bytes that went through."""

    def __init__(self, file: BinaryIO, total: int | None = None) -> None:
        """``total`` is how many there will be, if that is known."""
        self._file = file
        self.total = total
        self.count = 0

    def write(self, data: bytes) -> int:
        written = self._file.write(data)
        self.count += len(data)
        return written

    def readline(self, limit: int = -1) -> bytes:
        line = self._file.readline(limit)
        self.count += len(line)
        return line

    def __str__(self) -> str:
        share = f" of {size(self.total)}, {self.count / self.total:.0%}" if self.total else ""
        return f"{size(self.count)}{share}"


@asynccontextmanager
async def telling(verb: str, counted: object = None) -> AsyncIterator[None]:
    """While this lasts, tell on a terminal what is being done, and how far it has come: the text
    of ``counted``."""
    terminal = stderr()
    if not terminal.is_terminal:
        yield
        return
    begun = time.monotonic()

    async def tell() -> None:
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            far = f" {counted}," if counted is not None else ""
            took = duration((time.monotonic() - begun) * 1000)
            terminal.stream.write(f"{ERASE}{verb}{far} {took}")
            terminal.flush()
            await asyncio.sleep(EACH_SECONDS)

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if time.monotonic() - begun > FIRST_SECONDS:
            terminal.stream.write(ERASE)
            terminal.flush()
