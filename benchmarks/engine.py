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
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from comparing import (
    PROGRAMS,
    Engine,
    Found,
    Results,
    chosen,
    end,
    keep,
    progress,
    run_to_end,
    say,
    say_heading,
    say_row,
    take_down,
)
from engines.work import SHORT_RUN_STEPS, WORKS, Sizes

LIMIT_SECONDS = 600.0
"""What one engine may take in one round."""
FULL = "WAL, synchronous=FULL"
ENGINES = (
    Engine("floor", "bare SQLite, group commit", "bare.py", (), WORKS, durability=FULL),
    Engine("swarm", "Swarm", "with_swarm.py", ("instant",), WORKS, durability=FULL),
    Engine(
        "swarm-sandbox",
        "Swarm, fresh sandbox per step",
        "with_swarm.py",
        ("sandbox",),
        WORKS,
        durability=FULL,
    ),
    Engine(
        "dbos",
        "DBOS",
        "with_dbos.py",
        (),
        WORKS,
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
    Engine(
        "langgraph",
        "LangGraph, durability=sync",
        "with_langgraph.py",
        (),
        WORKS,
        is_peer=True,
        durability=FULL,
    ),
    Engine(
        "prefect",
        "Prefect, local server",
        "with_prefect.py",
        (),
        WORKS,
        is_peer=True,
        durability="WAL, synchronous=NORMAL; steps are recorded behind their back",
    ),
)


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


async def measure(
    engines: list[Engine],
    peers: str,
    sizes: Sizes,
    rounds: int,
    results: Results,
    told: Callable[[], None],
) -> None:
    """Every engine in every round, each time another one first; ``told`` in between."""
    for number in range(rounds):
        turn = number % len(engines)
        for engine in engines[turn:] + engines[:turn]:
            progress(f"round {number + 1} of {rounds}: {engine.title}")
            python = peers if engine.is_peer else sys.executable
            await one_round(engine, python, sizes, results)
        if number + 1 < rounds:
            told()


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
        say_heading(title, unit)
        floor = results[work].get("floor", Found()).samples
        for engine in engines:
            if (found := results[work].get(engine.name)) is not None:
                say_row(engine.title, found, floor, is_rate=work == "runs")
    say("\nwhat is durable when a step has ended")
    for engine in engines:
        say(f"  {engine.title:<34} {engine.durability}")


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
    engines = chosen(parser, ENGINES, arguments.engines, arguments.peers)
    sizes = Sizes(**{name: getattr(arguments, name) for name in Sizes.__annotations__})
    results: Results = {
        work: {engine.name: Found() for engine in engines if work in engine.works} for work in WORKS
    }

    def told() -> None:
        say_results(engines, sizes, results)
        amounts = {**asdict(sizes), "rounds": arguments.rounds}
        keep(arguments.json, engines, amounts, results)

    run_to_end(measure(engines, arguments.peers, sizes, arguments.rounds, results, told), told)


if __name__ == "__main__":
    main()
