"""The floor: asyncio and one thread that writes to SQLite, with group commit, and nothing else.

Before a step may begin, a small row says so, durably; when it has ended, another. The end of a step
and the begin of the next share a commit, as they may in any engine.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue

import work

SOCKET = "floor.sock"
Rows = list[tuple[str, int, str, int | None]]


class Journal:
    """Makes rows durable: what waits while a commit is under way shares the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[Rows, asyncio.Future[None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    async def add(self, rows: Rows) -> None:
        future = self._loop.create_future()
        self._queue.put((rows, future))
        await future

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS journal (run, step, event, value)")
        while (entry := self._queue.get()) is not None:
            batch = [entry]
            while not self._queue.empty() and (entry := self._queue.get()) is not None:
                batch.append(entry)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO journal VALUES (?, ?, ?, ?)",
                [row for rows, _ in batch for row in rows],
            )
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_resolve, [future for _, future in batch])
        connection.close()


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


async def no_op(value: int) -> int:
    return value + 1


class Bare:
    """See :class:`work.Engine`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs = 0
        self.journal = Journal(folder / "floor.db")

    async def chain(self, steps: int) -> int:
        run = self._new_run()
        value = 0
        ended: Rows = []
        for step in range(steps):
            await self.journal.add([*ended, (run, step, "started", None)])
            value = await no_op(value)
            ended = [(run, step, "ended", value)]
        await self.journal.add(ended)
        return value

    async def fan(self, width: int) -> int:
        run = self._new_run()

        async def one(step: int) -> int:
            value = await no_op(step)
            await self.journal.add([(run, step, "ended", value)])
            return value

        await self.journal.add([(run, step, "started", None) for step in range(width)])
        joined = await asyncio.gather(*(one(step) for step in range(width)))
        await self.journal.add([(run, width, "started", None)])
        await self.journal.add([(run, width, "ended", len(joined))])
        return len(joined)

    async def first_steps(self, count: int) -> list[float]:
        """The other process records the run and tells this one, which records the step."""
        path = self._folder / SOCKET
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            return await work.first_steps_of(__file__, str(self._folder), str(count))
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        run = (await reader.readline()).decode().strip()
        await self.journal.add([(run, 0, "started", None)])
        writer.write(b"%d\n" % time.monotonic_ns())
        await self.journal.add([(run, 0, "ended", 1)])
        writer.close()

    def _new_run(self) -> str:
        self._runs += 1
        return f"run_{self._runs}"


async def ask(folder: Path, count: int) -> None:
    """Be the process that asks for runs."""
    journal = Journal(folder / "floor.db")
    samples = []
    for number in range(count + work.WARM_UP_RUNS):
        await asyncio.sleep(work.BETWEEN_SECONDS)
        asked = time.monotonic_ns()
        await journal.add([(f"asked_{number}", -1, "created", None)])
        reader, writer = await asyncio.open_unix_connection(folder / SOCKET)
        writer.write(f"asked_{number}\n".encode())
        samples.append(work.milliseconds_since(asked, int(await reader.readline())))
        writer.close()
    journal.close()
    sys.stdout.write(json.dumps(samples[work.WARM_UP_RUNS :]) + "\n")


async def main() -> None:
    folder, sizes, works, _ = work.arguments()
    engine = Bare(folder)
    await work.measure(engine, sizes, works)
    engine.journal.close()


if __name__ == "__main__":
    asyncio.run(ask(Path(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) == 3 else main())
