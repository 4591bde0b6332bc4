"""What a durable step costs, beside other engines on the same work: `make bench-engine`.

One run of this program measures, in rounds so that whatever else the machine does hits all alike:
the floor (asyncio, one SQLite writer, group commit, `synchronous=FULL`, and nothing else), Swarm
with steps that are answered at once and with a fresh sandbox for each, and DBOS, LangGraph and
Prefect as installed from PyPI into an environment of their own (`.cache/engines`). In each round
every engine starts afresh, with an empty database, in a process of its own. See
`docs/how-to/benchmarks.md` for how to read it. Compare rows of one run, not across machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engines.work import SHORT_RUN_STEPS, WORKS, Sizes

PROGRAMS = Path(__file__).parent / "engines"
LIMIT_SECONDS = 600.0
"""What one engine may take in one round."""
LEAVE_SECONDS = 10.0
"""How long it may take to end when it is told to."""


@dataclass(frozen=True)
class Engine:
    """One row of the tables."""

    name: str
    title: str
    program: str
    arguments: tuple[str, ...] = ()
    works: tuple[str, ...] = WORKS
    is_peer: bool = False
    """Whether it runs with the environment that other engines were installed into."""
    durability: str = "WAL, synchronous=FULL"


ENGINES = (
    Engine("floor", "bare SQLite, group commit", "bare.py"),
    Engine("swarm", "Swarm", "with_swarm.py", ("instant",)),
    Engine("swarm-sandbox", "Swarm, fresh sandbox per step", "with_swarm.py", ("sandbox",)),
    Engine(
        "dbos",
        "DBOS",
        "with_dbos.py",
        is_peer=True,
        durability="rollback journal, synchronous=FULL",
    ),
    Engine(
        "dbos-10ms",
        "DBOS, queue polled every 10 ms",
        "with_dbos.py",
        ("0.01",),
        ("first",),
        is_peer=True,
        durability="rollback journal, synchronous=FULL",
    ),
    Engine("langgraph", "LangGraph, durability=sync", "with_langgraph.py", is_peer=True),
    Engine(
        "prefect",
        "Prefect, local server",
        "with_prefect.py",
        is_peer=True,
        durability="WAL, synchronous=NORMAL; steps are recorded behind their back",
    ),
)


@dataclass
class Found:
    """What was found of one engine doing one work."""

    samples: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        figures = {"p50": middle(self.samples), "p99": late(self.samples)} if self.samples else {}
        return {**asdict(self), **figures}


Results = dict[str, dict[str, Found]]
"""By work, then by engine."""


def middle(samples: list[float]) -> float:
    return statistics.median(samples)


def late(samples: list[float]) -> float:
    """The 99th percentile: with few samples, the largest."""
    return sorted(samples)[min(len(samples) - 1, len(samples) * 99 // 100)]


async def one_round(engine: Engine, python: str, sizes: Sizes, results: Results) -> None:
    """Run an engine's program once, and take down what it tells."""
    # Below the user's home, since /tmp may be a RAM disk, where nothing is durable.
    with tempfile.TemporaryDirectory(
        prefix=".swarm-bench-", dir=Path.home(), ignore_cleanup_errors=True
    ) as folder:
        process = await asyncio.create_subprocess_exec(
            python,
            str(PROGRAMS / engine.program),
            folder,
            sizes.as_json(),
            ",".join(engine.works),
            *engine.arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        failure = ""
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                output, complaints = await process.communicate()
        except TimeoutError:
            output, complaints = b"", b""
            failure = f"its process did not end within {LIMIT_SECONDS:g} s"
        finally:
            await end(process)
    if process.returncode and not failure:
        last = complaints.decode(errors="replace").strip().splitlines()[-1:]
        failure = f"its process ended with {process.returncode}: {''.join(last)}"
    told = take_down(output, engine, results)
    for work in set(engine.works) - told if failure else ():
        results[work][engine.name].errors.append(failure)


def take_down(output: bytes, engine: Engine, results: Results) -> set[str]:
    """Note what a program printed; return the works that it told of."""
    told = set()
    for line in output.splitlines():
        if not line.startswith(b'{"work"'):
            continue
        document = json.loads(line)
        found = results[document["work"]][engine.name]
        found.samples += document.get("samples", [])
        for name, notes in (("error", found.errors), ("note", found.notes)):
            if name in document and document[name] not in notes:
                notes.append(document[name])
        told.add(document["work"])
    return told


async def end(process: asyncio.subprocess.Process) -> None:
    """Leave nothing of a program: it leads a session of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await process.wait()
        except TimeoutError:
            continue


async def measure(
    engines: list[Engine], peers: str, sizes: Sizes, rounds: int, results: Results
) -> None:
    """Every engine in every round, each time another one first."""
    for number in range(rounds):
        turn = number % len(engines)
        for engine in engines[turn:] + engines[:turn]:
            progress(f"round {number + 1} of {rounds}: {engine.title}")
            python = peers if engine.is_peer else sys.executable
            await one_round(engine, python, sizes, results)


def headings(sizes: Sizes) -> dict[str, tuple[str, str]]:
    """What each work is, and its unit."""
    return {
        "chain": (f"a chain of {sizes.chain} steps", "ms per step"),
        "runs": (
            f"{sizes.runs} runs of {SHORT_RUN_STEPS} steps, {sizes.concurrency} at once",
            "steps/s",
        ),
        "fan": (f"{sizes.fan} steps at once, and one that joins them", "ms"),
        "first": ("from another process's call to the first step", "ms"),
    }


def say_results(engines: list[Engine], sizes: Sizes, results: Results) -> None:
    """Print a table for each work; every engine has its line in it."""
    for work, (title, unit) in headings(sizes).items():
        say(f"\n{title}, {unit}")
        say(f"  {'':<34} {'p50':>10} {'p99':>10} {'x floor':>8}  samples")
        floor = results[work].get("floor", Found()).samples
        for engine in engines:
            if (found := results[work].get(engine.name)) is not None:
                say(f"  {engine.title:<34} {row(found, floor, is_rate=work == 'runs')}")
    say("\nwhat is durable when a step has ended")
    for engine in engines:
        say(f"  {engine.title:<34} {engine.durability}")


def row(found: Found, floor: list[float], *, is_rate: bool) -> str:
    """The figures, or why there are none; of a rate, the p99 is that of the slowest."""
    if not found.samples:
        return f"not measured: {'; '.join(found.errors) or 'it told nothing'}"
    p50 = middle(found.samples)
    p99 = min(found.samples) if is_rate else late(found.samples)
    digits = 0 if is_rate else 2
    ratio = ""
    if floor:
        base = middle(floor)
        ratio = f"{base / p50 if is_rate else p50 / base:.1f}"
    text = f"{p50:>10,.{digits}f} {p99:>10,.{digits}f} {ratio:>8}  {len(found.samples)}"
    doubts = [*found.errors, *found.notes]
    return f"{text}  unreliable: {'; '.join(doubts)}" if doubts else text


def as_json(engines: list[Engine], sizes: Sizes, rounds: int, results: Results) -> str:
    document = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "sizes": {**asdict(sizes), "rounds": rounds},
        "engines": {engine.name: asdict(engine) for engine in engines},
        "results": {
            work: {name: found.as_json() for name, found in rows.items()}
            for work, rows in results.items()
        },
    }
    return json.dumps(document, indent=1)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [engine.name for engine in ENGINES]
    parser.add_argument("--engines", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument("--peers", default="", help="Python of the environment of the others")
    parser.add_argument("--rounds", type=int, default=3, help="how often each engine has its turn")
    parser.add_argument("--chain", type=int, default=100, help="steps of the chain")
    parser.add_argument("--chains", type=int, default=5, help="chains in each round")
    parser.add_argument("--runs", type=int, default=200, help="short runs in each round")
    parser.add_argument("--concurrency", type=int, default=50, help="short runs at once")
    parser.add_argument("--fan", type=int, default=500, help="steps of the fan-out")
    parser.add_argument("--fans", type=int, default=3, help="fan-outs in each round")
    parser.add_argument("--first", type=int, default=20, help="runs asked for by another process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there too")
    arguments = parser.parse_args()
    chosen = arguments.engines.split(",")
    if unknown := set(chosen) - set(names):
        parser.error(f"no such engine: {', '.join(sorted(unknown))}")
    engines = [engine for engine in ENGINES if engine.name in chosen]
    if not arguments.peers and any(engine.is_peer for engine in engines):
        parser.error("--peers is needed for other engines; `make bench-engine` gives it")
    sizes = Sizes(**{name: getattr(arguments, name) for name in Sizes.__annotations__})
    results: Results = {
        work: {engine.name: Found() for engine in engines if work in engine.works} for work in WORKS
    }
    try:
        asyncio.run(measure(engines, arguments.peers, sizes, arguments.rounds, results))
    except KeyboardInterrupt:
        progress("interrupted: this is what was found until then")
    say_results(engines, sizes, results)
    if arguments.json:
        arguments.json.write_text(as_json(engines, sizes, arguments.rounds, results))


if __name__ == "__main__":
    main()
