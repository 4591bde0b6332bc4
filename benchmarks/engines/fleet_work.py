"""The work that every engine of the fleet benchmark is given, and how it is timed.

Each engine has a program here that is run as ``program ROLE URL FOLDER SIZES [ARGUMENT ...]``, in
the role of one process of the fleet:

- ``prepare`` makes the tables in the empty database at URL, and registers what is to run;
- ``work`` is a worker: it prints ``ready`` when it takes runs, and does so until SIGTERM;
- ``ask`` records runs, waits until the workers have done them, and prints a JSON object for each
  work: ``{"work", "samples"}``, or ``{"work", "error"}``.

The engines tell by the same means when a step begins: the step writes the time to a Unix socket of
the process that asks (CLOCK_MONOTONIC, which processes share). Whether runs have ended, the
database is asked, and only when all their steps have begun.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol

import psycopg

WORKS = ("runs", "asked", "worker-cpu", "server-cpu", "chain", "first")
"""What is told of; the first four come of the same runs."""
RUN_STEPS = 5
RUNS_AT_ONCE = 50
"""What a worker has under way at once, at most."""
WARM_UP_RUNS = 20
LIMIT_SECONDS = 120.0
"""What one work may take."""
PAUSE_SECONDS = 0.05
"""Before a run whose pick-up is timed, so that each finds the workers idle."""
LOOK_SECONDS = 0.01
"""Between looks whether runs have ended, once all their steps have begun."""
SOCKET = "asker"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sizes:
    """How much of each work is done, with which processes."""

    chain: int
    """Steps of a chain."""
    chains: int
    """Chains, one after another; each gives one sample."""
    runs: int
    """Runs of ``RUN_STEPS`` steps; together they give one sample."""
    concurrency: int
    """Of those, how many are recorded at once."""
    first: int
    """Runs of one step whose pick-up is timed, one after another."""
    worker_pids: tuple[int, ...] = ()
    server_pid: int = 0

    def as_json(self) -> str:
        return json.dumps(asdict(self))


class CannotBeMeasured(Exception):
    """Why an engine has no figure for a work."""


class Asker(Protocol):
    """An engine, as whoever asks for runs sees it."""

    ended: ClassVar[str]
    """SQL: the number of runs that have ended well."""
    poll_seconds: ClassVar[float]
    """How often it looks for new runs; pauses vary by as much, not to be in step with it."""

    async def ask(self, kind: str, name: str) -> None:
        """Record a run, for any worker to take up.

        ``kind`` is ``run`` (``RUN_STEPS`` steps, the last of which tells of itself), ``chain`` (the
        first and the last do), or ``first`` (one step, which does).
        """
        ...


# -- in workers ----------------------------------------------------------------------------------


class Teller:
    """Tells when steps begin."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / SOCKET)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def tell(self, name: str) -> None:
        line = f"{name} {time.monotonic_ns()}\n".encode()
        with self._lock:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(self._path)
            self._socket.sendall(line)


def say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def tells(kind: str, step: int, steps: int) -> bool:
    """Whether a step of a run tells of itself."""
    return step == steps - 1 or (kind == "chain" and step == 0)


# -- in the process that asks --------------------------------------------------------------------


class Hearing:
    """Hears what steps tell."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SOCKET
        self._heard: dict[str, list[int]] = {}
        self._awaited: dict[str, tuple[int, asyncio.Future[list[int]]]] = {}

    async def __aenter__(self) -> Hearing:
        self._server = await asyncio.start_unix_server(self._read, self._path)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    def expect(self, name: str, count: int = 1) -> asyncio.Future[list[int]]:
        """The times, in nanoseconds, of ``count`` steps that tell this name."""
        future = asyncio.get_running_loop().create_future()
        self._awaited[name] = (count, future)
        return future

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            name, moment = line.decode().split()
            heard = self._heard.setdefault(name, [])
            heard.append(int(moment))
            count, future = self._awaited[name]
            if len(heard) == count and not future.done():
                future.set_result(heard)
        writer.close()


class Measuring:
    """Asks an engine for each work, and tells the samples."""

    def __init__(self, asker: Asker, hearing: Hearing, database: Any, sizes: Sizes) -> None:
        self._asker = asker
        self._hearing = hearing
        self._database = database
        self._sizes = sizes
        self._chance = random.Random(7)

    async def all(self) -> None:
        await self._try(("chain",), self._chains)
        await self._try(WORKS[:4], self._runs)
        await self._try(("first",), self._first_steps)

    async def _try(self, works: tuple[str, ...], measure: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                await measure()
        except TimeoutError:
            reason = f"not done within {LIMIT_SECONDS:g} s"
        except CannotBeMeasured as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  whatever an engine raises is its answer
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            return
        for work in works:
            tell(work, error=reason)

    async def _runs(self) -> None:
        """Runs per second, in all and as they are recorded; milliseconds of a processor per run."""
        sizes = self._sizes
        await self._do("warm", WARM_UP_RUNS * max(1, len(sizes.worker_pids)))
        workers, server = _seconds_of(sizes.worker_pids), _server_seconds(sizes.server_pid)
        asked, seconds = await self._do("run", sizes.runs)
        workers = _seconds_of(sizes.worker_pids) - workers
        server = _server_seconds(sizes.server_pid) - server
        tell("runs", samples=[sizes.runs / seconds])
        tell("asked", samples=[sizes.runs / asked])
        tell("worker-cpu", samples=[workers * 1000 / sizes.runs])
        tell("server-cpu", samples=[server * 1000 / sizes.runs])

    async def _do(self, prefix: str, count: int) -> tuple[float, float]:
        """Have ``count`` short runs done; seconds until all were recorded, and had ended."""
        places = asyncio.Semaphore(self._sizes.concurrency)
        before = await self._count_ended()

        async def ask(name: str) -> None:
            async with places:
                await self._asker.ask("run", name)

        names = [f"{prefix}-{number}" for number in range(count)]
        told = [self._hearing.expect(name) for name in names]
        start = time.perf_counter()
        await asyncio.gather(*(ask(name) for name in names))
        asked = time.perf_counter() - start
        await asyncio.gather(*told)
        await self._until_ended(before + count)
        return asked, time.perf_counter() - start

    async def _chains(self) -> None:
        """Milliseconds per step, between the begin of the first and that of the last."""
        samples = []
        for number in range(self._sizes.chains + 1):
            before = await self._count_ended()
            told = self._hearing.expect(f"chain-{number}", 2)
            await self._asker.ask("chain", f"chain-{number}")
            first, last = sorted(await told)
            samples.append((last - first) / 1e6 / (self._sizes.chain - 1))
            await self._until_ended(before + 1)
        tell("chain", samples=samples[1:])

    async def _first_steps(self) -> None:
        """Milliseconds from the call until the first step begins."""
        samples = []
        for number in range(self._sizes.first + 1):
            pause = self._chance.uniform(0, self._asker.poll_seconds)
            await asyncio.sleep(PAUSE_SECONDS + pause)
            told = self._hearing.expect(f"first-{number}")
            asked = time.monotonic_ns()
            await self._asker.ask("first", f"first-{number}")
            (began,) = await told
            samples.append((began - asked) / 1e6)
        tell("first", samples=samples[1:])

    async def _until_ended(self, count: int) -> None:
        while True:
            ended = await self._count_ended()
            if ended >= count:
                break
            await asyncio.sleep(LOOK_SECONDS)
        if ended > count:
            raise CannotBeMeasured(f"{ended} runs have ended where {count} were asked for")

    async def _count_ended(self) -> int:
        cursor = await self._database.execute(self._asker.ended)
        (count,) = await cursor.fetchone()
        return int(count)


async def measure(asker: Asker, url: str, folder: Path, sizes: Sizes) -> None:
    """Have all works done and tell what was found."""
    database = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with database, Hearing(folder) as hearing:
        await Measuring(asker, hearing, database, sizes).all()


def tell(work: str, **content: Any) -> None:
    sys.stdout.write(json.dumps({"work": work, **content}) + "\n")
    sys.stdout.flush()


def arguments() -> tuple[str, str, Path, Sizes, list[str]]:
    """Role, database, folder, sizes, and what is the engine's own."""
    role, url, folder, sizes, *rest = sys.argv[1:]
    return role, url, Path(folder), Sizes(**json.loads(sizes)), rest


def _seconds_of(pids: tuple[int, ...]) -> float:
    """Seconds of a processor that processes have used, with their children that have ended."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / _TICKS


def _server_seconds(pid: int) -> float:
    """The same of a database server: its first process and all that serve for it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _seconds_of((pid, *map(int, children)))
