"""What a fleet does on one PostgreSQL, beside DBOS and the floor: `make bench-fleet`.

It starts a durable PostgreSQL of its own and gives the same work to each engine with 1, 2 and 4
worker processes, in rounds in which the engines take turns, each time with an empty database:
Procrastinate alone (the floor: one job per run, nothing recorded of its steps), Swarm with steps
that are answered at once, and DBOS as installed and with its queue polled every 10 ms. Then it
counts what idle workers ask of the database. See `docs/how-to/benchmarks.md` for how to read it.
Compare rows of one run, not across machines.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from comparing import (
    PROGRAMS,
    Engine,
    Found,
    Results,
    chosen,
    end,
    keep,
    middle,
    progress,
    run_to_end,
    say,
    say_heading,
    say_row,
    take_down,
)
from engines.fleet_work import RUN_STEPS, WORKS, Sizes
from private_postgres import PostgresServer, running_server

AIM_PICK_UP_MS = 10.0
AIM_TIMES_DBOS = 5.0
SETTLE_SECONDS = 5.0
"""Before idle workers are watched: what they do when they start is done."""
DURABLE = Path("/var/tmp")
"""Where the database lies: /tmp may be a RAM disk, where nothing is durable."""
SERVER = {
    "shared_buffers": "256MB",
    "max_connections": "400",
    "shared_preload_libraries": "pg_stat_statements",
}

IDLE = ("idle-statements", "idle-transactions")
ALL = (*WORKS, *IDLE)
ENGINES = (
    # As installed it polls every 5 s, and it may miss a notification while it fetches a job: what
    # is to be the floor would stand still for seconds.
    Engine(
        "floor", "Procrastinate, polled too (20 ms)", "fleet_procrastinate.py", ("0.02",), WORKS
    ),
    Engine("procrastinate", "Procrastinate", "fleet_procrastinate.py", (), IDLE),
    Engine("swarm", "Swarm", "fleet_swarm.py", (), ALL),
    Engine("dbos", "DBOS", "fleet_dbos.py", (), ALL, is_peer=True),
    Engine("dbos-10ms", "DBOS, polled every 10 ms", "fleet_dbos.py", ("0.01",), ALL, is_peer=True),
)


@dataclass(frozen=True)
class Options:
    """How one run of this program measures."""

    engines: list[Engine]
    peers: str
    """Python of the environment that other engines were installed into."""
    workers: list[int]
    sizes: Sizes
    rounds: int
    limit: float
    """Seconds that an engine may take, with one number of workers, in one round."""
    idle_workers: int
    idle_seconds: float


class Failed(Exception):
    """A process of an engine did not do what it is there for."""


def row_name(engine: Engine, workers: int) -> str:
    return f"{engine.name}/{workers}"


class Fleet:
    """The processes of one engine on one empty database."""

    def __init__(self, engine: Engine, python: str, url: str, folder: Path, sizes: Sizes) -> None:
        self._command = [python, str(PROGRAMS / engine.program)]
        self._arguments = (url, str(folder))
        self._own = engine.arguments
        self._folder = folder
        self._sizes = sizes
        self._workers: list[asyncio.subprocess.Process] = []

    async def prepare(self) -> None:
        """Make tables, and register what is to run.

        Raises:
            Failed: it could not.
        """
        await self._to_end("prepare", self._sizes)

    async def start(self, count: int) -> None:
        """Start workers, and wait until each takes runs.

        Raises:
            Failed: one did not start.
        """
        self._workers += [await self._begin("work", self._sizes) for _ in range(count)]
        for worker in self._workers:
            assert worker.stdout is not None
            while (line := await worker.stdout.readline()) != b"ready\n":
                if not line:
                    raise Failed(f"a worker did not start: {self._complaint('work')}")

    async def ask(self, server_pid: int) -> bytes:
        """Have all work done; what was told.

        Raises:
            Failed: the process that asks ended badly.
        """
        pids = tuple(worker.pid for worker in self._workers)
        return await self._to_end(
            "ask", replace(self._sizes, worker_pids=pids, server_pid=server_pid)
        )

    async def end(self) -> None:
        """At once: what they would tidy up is dropped."""
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            await worker.wait()

    async def _to_end(self, role: str, sizes: Sizes) -> bytes:
        process = await self._begin(role, sizes)
        try:
            output, _ = await process.communicate()
        finally:
            await end(process)
        if process.returncode:
            raise Failed(f"`{role}` ended with {process.returncode}: {self._complaint(role)}")
        return output

    async def _begin(self, role: str, sizes: Sizes) -> asyncio.subprocess.Process:
        with (self._folder / f"{role}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", *self._command, role),
                *(*self._arguments, sizes.as_json(), *self._own),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def _complaint(self, role: str) -> str:
        lines = (self._folder / f"{role}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


@asynccontextmanager
async def fleet(
    engine: Engine, options: Options, server: PostgresServer
) -> AsyncIterator[tuple[Fleet, str]]:
    """An engine's processes on an empty database, and its name; both are gone afterwards."""
    database = await asyncio.to_thread(server.create_database)
    python = options.peers if engine.is_peer else sys.executable
    with tempfile.TemporaryDirectory(prefix="swarm-bench-", ignore_cleanup_errors=True) as folder:
        processes = Fleet(engine, python, server.url(database), Path(folder), options.sizes)
        try:
            await processes.prepare()
            yield processes, database
        finally:
            await processes.end()
            await asyncio.to_thread(server.drop_database, database)


async def measure_work(
    engine: Engine, workers: int, options: Options, server: PostgresServer, results: Results
) -> None:
    """Give an engine its work once, and take down what is told."""
    name = row_name(engine, workers)
    failure = ""
    told: set[str] = set()
    try:
        async with asyncio.timeout(options.limit), fleet(engine, options, server) as (processes, _):
            await processes.start(workers)
            output = await processes.ask(server.pid)
            told = take_down(output, replace(engine, name=name), results)
    except TimeoutError:
        failure = f"not done within {options.limit:g} s"
    except Failed as error:
        failure = str(error)
    for work in set(WORKS) - told if failure else ():
        results[work][name].errors.append(failure)


async def measure_idle(
    engine: Engine, options: Options, server: PostgresServer, results: Results
) -> None:
    """Count what idle workers ask of the database."""
    name = row_name(engine, options.idle_workers)
    try:
        async with (
            asyncio.timeout(options.limit),
            fleet(engine, options, server) as (processes, database),
        ):
            await processes.start(options.idle_workers)
            await asyncio.sleep(SETTLE_SECONDS)
            before = await asyncio.to_thread(counted, server, database)
            await asyncio.sleep(options.idle_seconds)
            after = await asyncio.to_thread(counted, server, database)
    except (TimeoutError, Failed) as error:
        for work in IDLE:
            results[work][name].errors.append(str(error) or f"not done in {options.limit:g} s")
        return
    for work, old, new in zip(IDLE, before, after, strict=True):
        results[work][name].samples.append((new - old) / options.idle_seconds)


def counted(server: PostgresServer, database: str) -> tuple[int, int]:
    """Statements and transactions that a database has seen."""
    statements, transactions = server.execute(
        "SELECT coalesce((SELECT sum(calls) FROM pg_stat_statements WHERE dbid = datid), 0), "
        f"xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{database}'"
    ).split("|")
    return int(statements), int(transactions)


async def measure(options: Options, results: Results, told: Callable[[], None]) -> None:
    """Every engine in every round, each time another one first; then all of them idle.

    ``told`` is called between rounds.
    """
    with running_server(durable=True, settings=SERVER, parent=DURABLE) as server:
        server.execute("CREATE EXTENSION pg_stat_statements")
        busy = doing(options.engines, WORKS)
        for number in range(options.rounds):
            turn = number % len(busy) if busy else 0
            for workers in options.workers:
                for engine in busy[turn:] + busy[:turn]:
                    progress(
                        f"round {number + 1} of {options.rounds}: {engine.title}, {workers} workers"
                    )
                    await measure_work(engine, workers, options, server, results)
            if number + 1 < options.rounds:
                told()
        for engine in doing(options.engines, IDLE) if options.idle_seconds else ():
            progress(f"idle: {engine.title}, {options.idle_workers} workers")
            await measure_idle(engine, options, server, results)


def doing(engines: list[Engine], works: tuple[str, ...]) -> list[Engine]:
    return [engine for engine in engines if set(works) <= set(engine.works)]


# -- what is said --------------------------------------------------------------------------------


def headings(sizes: Sizes) -> dict[str, tuple[str, str]]:
    """What each work is, and its unit."""
    return {
        "runs": (f"{sizes.runs} runs of {RUN_STEPS} steps", "runs/s (the floor: jobs/s)"),
        "asked": ("of these, how fast one process records them", "runs/s"),
        "worker-cpu": ("processor time of all workers", "ms per run"),
        "server-cpu": ("processor time of the database", "ms per run"),
        "chain": (f"a chain of {sizes.chain} steps", "ms per step"),
        "first": ("from another process's call to the first step", "ms"),
    }


RATES = frozenset({"runs", "asked"})


def say_results(options: Options, results: Results) -> None:
    for work, (title, unit) in headings(options.sizes).items():
        say_heading(title, unit)
        for workers in options.workers:
            floor = results[work].get(f"floor/{workers}", Found()).samples
            for engine in doing(options.engines, WORKS):
                found = results[work][row_name(engine, workers)]
                say_row(f"{engine.title}, {workers}", found, floor, is_rate=work in RATES)
    if any(results[work][name].samples for work in IDLE for name in results[work]):
        say(f"\n{options.idle_workers} idle workers, {options.idle_seconds:g} s: asked per second")
        for engine in doing(options.engines, IDLE):
            founds = [results[work][row_name(engine, options.idle_workers)] for work in IDLE]
            say(f"  {engine.title:<34} {idle_row(*founds)}")
    say_aims(options, results)


def idle_row(statements: Found, transactions: Found) -> str:
    if not statements.samples:
        return f"not measured: {'; '.join(statements.errors)}"
    asked, committed = middle(statements.samples), middle(transactions.samples)
    return f"{asked:>10.1f} statements, {committed:.1f} transactions"


def say_aims(options: Options, results: Results) -> None:
    """What was aimed at, and what was found."""
    say("\naims")
    for workers in options.workers:
        swarm = results["runs"].get(f"swarm/{workers}", Found()).samples
        peers = [
            samples
            for engine in options.engines
            if engine.is_peer and (samples := results["runs"][row_name(engine, workers)].samples)
        ]
        text = "not measured"
        if swarm and peers:
            best = max(middle(samples) for samples in peers)
            times = middle(swarm) / best
            steps = middle(swarm) * RUN_STEPS
            text = (
                f"{times:.1f} times: {steps:,.0f} beside {best * RUN_STEPS:,.0f} "
                f"({'met' if times >= AIM_TIMES_DBOS else 'not met'})"
            )
        say(f"  steps/s, {workers} workers: {AIM_TIMES_DBOS:g} times DBOS at its better: {text}")
    for workers in options.workers:
        first = results["first"].get(f"swarm/{workers}", Found()).samples
        text = "not measured"
        if first:
            p50 = middle(first)
            text = f"{p50:.1f} ms ({'met' if p50 <= AIM_PICK_UP_MS else 'not met'})"
        say(f"  pick-up, {workers} workers: at most {AIM_PICK_UP_MS:g} ms p50: {text}")


def parsed() -> tuple[Options, Path | None]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [engine.name for engine in ENGINES]
    parser.add_argument("--engines", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument("--peers", default="", help="Python of the environment of the others")
    parser.add_argument("--workers", default="1,2,4", help="numbers of worker processes")
    parser.add_argument("--rounds", type=int, default=3, help="how often each engine has its turn")
    parser.add_argument("--runs", type=int, default=400, help="short runs in each round")
    parser.add_argument("--concurrency", type=int, default=50, help="short runs asked for at once")
    parser.add_argument("--chain", type=int, default=100, help="steps of the chain")
    parser.add_argument("--chains", type=int, default=3, help="chains in each round")
    parser.add_argument("--first", type=int, default=20, help="runs whose pick-up is timed")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each turn")
    parser.add_argument("--idle-workers", type=int, default=10, help="workers that have no work")
    parser.add_argument("--idle-seconds", type=float, default=20.0, help="0: leave that out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there too")
    arguments = parser.parse_args()
    engines = chosen(parser, ENGINES, arguments.engines, arguments.peers)
    sizes = Sizes(
        **{
            name: getattr(arguments, name)
            for name in ("chain", "chains", "runs", "concurrency", "first")
        }
    )
    options = Options(
        engines,
        arguments.peers,
        [int(count) for count in arguments.workers.split(",")],
        sizes,
        arguments.rounds,
        arguments.limit,
        arguments.idle_workers,
        arguments.idle_seconds,
    )
    return options, arguments.json


def main() -> None:
    options, file = parsed()
    results: Results = {
        work: {
            row_name(engine, workers): Found()
            for workers in options.workers
            for engine in doing(options.engines, WORKS)
        }
        for work in WORKS
    }
    for work in IDLE:
        results[work] = {
            row_name(engine, options.idle_workers): Found()
            for engine in doing(options.engines, IDLE)
        }

    def told() -> None:
        say_results(options, results)
        sizes = {**asdict(options.sizes), "rounds": options.rounds, "workers": options.workers}
        keep(file, options.engines, sizes, results)

    run_to_end(measure(options, results, told), told)


if __name__ == "__main__":
    main()
