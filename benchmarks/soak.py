"""Does a fleet stay as it is? A soak at a share of its capacity: `make soak`.

It starts a durable PostgreSQL of its own and two workers, measures how many runs per second they
end when there are always more, and then offers a share of that for half an hour, due at random
moments (see soak_load.py), with a retention that is so short that what is kept reaches its steady
state within minutes. Every ten seconds it looks at processes, tables, files and the log. In the
end the rule of soak_rule.py decides; the exit status is 1 unless it is kept. SIGTERM ends it early,
with the figures so far. See `docs/how-to/benchmarks.md` for how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from private_postgres import PostgresServer, find_binaries, running_server
from soak_load import Account, Load
from soak_report import as_json, say_report
from soak_rule import Judgement, judge_growth, judge_latency
from soak_runs import register
from soak_watch import Watch

from swarm.bootstrap.assembly import open_swarm
from swarm.kernel.configuration import load_settings
from swarm.kernel.settings import Settings

DURABLE = Path("/var/tmp")
"""Where the database lies: /tmp may be a RAM disk, where nothing is durable."""
SERVER = {
    "shared_buffers": "256MB",
    "max_connections": "100",
    "max_wal_size": "1GB",
    "track_commit_timestamp": "on",
}
WARM_UP_SECONDS = 5.0
"""Of the burst that tells the capacity."""
LEAVE_SECONDS = 30.0
"""What a worker may take to end when it is told to."""
MAX_SENT_LATE_MS = 100.0
"""p99: beyond that, the load was not the one that it is said to have been."""
DAY = 86_400.0


@dataclass(frozen=True)
class Options:
    """How one soak is done."""

    minutes: float
    workers: int
    share: float
    """Of the capacity."""
    rate: float | None
    """Runs per second, instead of a share of the capacity."""
    burst_seconds: float
    places: int
    """Runs under way in the burst."""
    every: float
    """Seconds between samples."""
    retention: float
    """Seconds for which runs are kept after their end; 0 keeps them."""
    unused: float
    """Seconds for which artifacts are kept that nothing refers to."""
    seed: int
    free_gigabytes: float
    """The soak ends early when the disk has less."""


@dataclass
class Report:
    """What was found."""

    options: Options
    capacity: float | None = None
    """Runs per second of the burst."""
    rate: float = 0.0
    seconds: float = 0.0
    began: float = 0.0
    """When the load did, seconds since 1970."""
    samples: list[dict[str, float]] = field(default_factory=list)
    account: Account = field(default_factory=Account)
    early: str = ""
    """Why it ended early, if it did."""
    exits: dict[str, int | None] = field(default_factory=dict)
    """How each worker ended, None if it had to be killed."""

    def judgements(self) -> list[Judgement]:
        """What decides."""
        ended = [(run.due - self.began, run) for run in self.account.ended]
        chains = [(at, run) for at, run in ended if run.kind == "chain"]
        late = sorted(self.account.late_ms)
        sent_late = late[len(late) * 99 // 100] if late else 0.0
        return [
            Judgement("runs that ended wrongly or not at all", self.account.wrong_count, 0),
            Judgement("workers that ended wrongly", sum(bool(c) for c in self.failed_exits()), 0),
            Judgement("p99 of how late runs were asked for", sent_late, MAX_SENT_LATE_MS, 0, "ms"),
            judge_latency(
                "p99 until the first step", [(at, r.start_ms) for at, r in ended], self.seconds
            ),
            judge_latency("p99 of chains", [(at, r.end_ms) for at, r in chains], self.seconds),
            judge_latency("p99 of all runs", [(at, r.end_ms) for at, r in ended], self.seconds),
            *judge_growth(self.samples, self.seconds),
        ]

    def failed_exits(self) -> list[str]:
        return [f"{name}: {code}" for name, code in self.exits.items() if code != 0]

    @property
    def is_kept(self) -> bool:
        return not self.early and all(judgement.is_kept for judgement in self.judgements())


# -- processes -----------------------------------------------------------------------------------


def settings_of(options: Options, url: str, home: Path) -> Settings:
    """Of whoever asks; workers get the same by their environment."""
    return load_settings({"SWARM_HOME": str(home), **variables(options)}, {"database_url": url})


def variables(options: Options) -> dict[str, str]:
    return {
        "SWARM_RETENTION_DAYS": str(options.retention / DAY),
        "SWARM_UNUSED_DAYS": str(options.unused / DAY),
        "SWARM_MAX_TIMEOUT_SECONDS": "60",
        "SWARM_ARTIFACT_CACHE_MB": "16",
    }


@asynccontextmanager
async def worker(
    name: str, options: Options, url: str, folder: Path, report: Report
) -> AsyncIterator[tuple[int, Path]]:
    """A `swarm worker` with a home of its own, as on a machine of its own: process and home."""
    home = folder / name.replace(" ", "-")
    kept = {key: text for key, text in os.environ.items() if not key.startswith("SWARM_")}
    environment = {
        **kept,
        **variables(options),
        "SWARM_HOME": str(home),
        "SWARM_DATABASE_URL": url,
    }
    with (folder / f"{home.name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", sys.executable, "-P", "-m", "swarm", "worker"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{name} did not start: {(folder / f'{home.name}.log').read_text()}")
        yield process.pid, home
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                report.exits[name] = await process.wait()
        except TimeoutError:
            report.exits[name] = None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


# -- the soak ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fleet:
    """Workers on an empty database, and what asks them for runs."""

    load: Load
    workers: dict[str, tuple[int, Path]]
    """The process and the home of each."""
    watching: psycopg.AsyncConnection[Any]
    """A connection to look at them."""
    stop: asyncio.Event
    """Set when all is to end early."""


@asynccontextmanager
async def fleet(
    options: Options, server: PostgresServer, folder: Path, report: Report
) -> AsyncIterator[Fleet]:
    """Have workers started, and ended afterwards; SIGTERM sets ``stop``."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end_early, report, stop, f"ended by {number.name}")
    url = server.url(server.create_database())
    async with AsyncExitStack() as closing:
        swarm = await closing.enter_async_context(
            open_swarm(settings_of(options, url, folder / "asker"), role="run")
        )
        await register(swarm, folder)
        workers = {}
        for number in range(options.workers):
            name = f"worker {number + 1}"
            workers[name] = await closing.enter_async_context(
                worker(name, options, url, folder, report)
            )
        looking, watching = [
            await closing.enter_async_context(
                await psycopg.AsyncConnection[Any].connect(url, autocommit=True)
            )
            for _ in range(2)
        ]
        yield Fleet(
            Load(swarm, looking, random.Random(options.seed), stop), workers, watching, stop
        )


async def soak(options: Options, server: PostgresServer, folder: Path, report: Report) -> None:
    """Have it all done; what was found goes into ``report`` as it is found."""
    async with fleet(options, server, folder, report) as running:
        load, stop = running.load, running.stop
        report.rate = await rate_of(options, load, report)
        watch = Watch(running.watching, server.pid, running.workers, folder)
        report.samples = watch.samples
        if stop.is_set():
            return
        progress(f"{report.rate:.1f} runs/s for {options.minutes:g} minutes, --seed {options.seed}")
        async with asyncio.TaskGroup() as group:
            regular = group.create_task(look_regularly(watch, load, options, report, stop))

            def begin() -> None:
                report.began, report.account = time.time(), load.account
                watch.begin()

            report.seconds = await load.offer(report.rate, options.minutes * 60, begin)
            regular.cancel()


def end_early(report: Report, stop: asyncio.Event, reason: str) -> None:
    report.early = report.early or reason
    stop.set()


async def rate_of(options: Options, load: Load, report: Report) -> float:
    """The runs per second to offer."""
    if options.rate is not None:
        return options.rate
    progress(f"capacity: {options.places} runs under way for {options.burst_seconds:g} s")
    report.capacity = await load.burst(options.places, WARM_UP_SECONDS, options.burst_seconds)
    if load.account.wrong_count:
        end_early(report, load.stop, f"the burst went wrong: {load.account.wrong[0]}")
    return report.capacity * options.share


async def look_regularly(
    watch: Watch, load: Load, options: Options, report: Report, stop: asyncio.Event
) -> None:
    """Sample until cancelled; end the soak before it fills the disk."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        sample = await watch.look()
        report.seconds = sample["at"]
        progress(
            f"{sample['at']:7.0f} s  {load.account.asked} asked, {load.unfinished} under way, "
            f"{load.account.wrong_count} wrong; database {sample['database bytes'] / 1e6:.0f} MB, "
            "workers "
            + ", ".join(
                f"{value / 1e6:.0f}"
                for name, value in sample.items()
                if name.startswith("worker") and name.endswith("sandboxes memory")
            )
            + " MB"
        )
        if sample["disk free"] < options.free_gigabytes * 1e9:
            end_early(report, stop, f"the disk has less than {options.free_gigabytes:g} GB left")
        due += options.every
        await asyncio.sleep(max(0.0, due - loop.time()))


def progress(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def parsed() -> tuple[Options, Path | None]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    number = float
    parser.add_argument("--minutes", type=number, default=30.0)
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--share", type=number, default=0.7, help="of the capacity that is offered")
    parser.add_argument("--rate", type=number, help="runs per second; then no capacity is measured")
    parser.add_argument("--burst-seconds", type=number, default=25.0, help="to measure capacity")
    parser.add_argument("--places", type=int, default=100, help="runs under way in the burst")
    parser.add_argument("--every", type=number, default=10.0, help="seconds between samples")
    parser.add_argument("--retention", type=number, default=60.0, help="seconds; 0 keeps all runs")
    parser.add_argument("--unused", type=number, default=60.0, help="seconds that artifacts stay")
    parser.add_argument("--seed", type=int, help="of when runs are due and what they are")
    parser.add_argument("--free-gigabytes", type=number, default=5.0, help="of disk, to go on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found too")
    arguments = vars(parser.parse_args())
    file = arguments.pop("json")
    if arguments["seed"] is None:
        arguments["seed"] = secrets.randbelow(2**32)
    return Options(**arguments), file


def main() -> int:
    options, file = parsed()
    if find_binaries() is None:
        progress("PostgreSQL is missing (Debian, Ubuntu: apt-get install postgresql)")
        return 5
    report = Report(options)
    folder = Path(tempfile.mkdtemp(prefix="swarm-soak-", dir=DURABLE))
    try:
        with running_server(durable=True, settings=SERVER, parent=DURABLE) as server:
            asyncio.run(soak(options, server, folder, report))
    finally:  # whatever ended it: what was found until then is told
        shutil.rmtree(folder, ignore_errors=True)
        say_report(report)
        if file:
            file.write_text(as_json(report))
    return 0 if report.is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
