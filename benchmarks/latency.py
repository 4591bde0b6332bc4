"""How long runs take at shares of a fleet's capacity, beside what a model of queues says.

usage: python benchmarks/latency.py [--shares 0.1,0.3,0.5,0.7,0.85] [--minutes 1]

It does as soak.py, with the same runs, but offers each share for a short while. The model is two
processors (this machine's) that all of it shares: it is given how long runs take at the first share
and says how long they take at the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from private_postgres import PostgresServer, running_server
from queueing import slowdown
from soak import DURABLE, SERVER, Options, Report, fleet, progress, rate_of
from soak_report import say
from soak_rule import percentile

OPTIONS = Options(
    minutes=1.0,
    workers=2,
    share=1.0,
    rate=None,
    burst_seconds=25.0,
    places=100,
    every=10.0,
    retention=60.0,
    unused=60.0,
    seed=7,
    free_gigabytes=5.0,
)


@dataclass(frozen=True)
class Found:
    """What was found at one share."""

    share: float
    rate: float
    """Runs per second."""
    runs: int
    start_p50: float
    start_p99: float
    chain_mean: float
    chain_p50: float
    chain_p99: float
    wrong: int


async def measure(
    options: Options, shares: list[float], server: PostgresServer, folder: Path
) -> tuple[float, list[Found]]:
    """The capacity in runs per second, and what was found at each share of it."""
    report = Report(options)
    found = []
    async with fleet(options, server, folder, report) as running:
        capacity = await rate_of(options, running.load, report)
        for share in shares:
            if running.stop.is_set():
                break
            progress(f"{share:.0%} of {capacity:.1f} runs/s for {options.minutes:g} minutes")
            await running.load.offer(share * capacity, options.minutes * 60, lambda: None)
            ended = running.load.account.ended
            starts = [run.start_ms for run in ended]
            chains = [run.end_ms for run in ended if run.kind == "chain"]
            found.append(
                Found(
                    share,
                    share * capacity,
                    len(ended),
                    percentile(starts, 0.5),
                    percentile(starts, 0.99),
                    statistics.mean(chains),
                    percentile(chains, 0.5),
                    percentile(chains, 0.99),
                    running.load.account.wrong_count,
                )
            )
    return capacity, found


def say_found(capacity: float, found: list[Found]) -> None:
    cores = os.cpu_count() or 1
    say(f"\n{capacity:.1f} runs/s is what was ended at most; milliseconds from when runs were due")
    say(f"{'share':>6}{'runs/s':>8}{'start p50':>11}{'p99':>8}{'chain mean':>12}{'p99':>8}"
        f"{'model: mean':>13}{'off by':>8}{'wrong':>7}")  # fmt: skip
    first = found[0]
    alone = first.chain_mean / slowdown(cores, first.share)
    for each in found:
        told = alone * slowdown(cores, each.share)
        say(
            f"{each.share:>6.0%}{each.rate:>8.1f}{each.start_p50:>11.1f}{each.start_p99:>8.1f}"
            f"{each.chain_mean:>12.1f}{each.chain_p99:>8.1f}{told:>13.1f}"
            f"{told / each.chain_mean - 1:>+8.0%}{each.wrong:>7}"
        )
    say(json.dumps({f"{each.share:g}": round(each.chain_mean, 1) for each in found}))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shares", default="0.1,0.3,0.5,0.7,0.85")
    parser.add_argument("--minutes", type=float, default=1.0, help="at each share")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    options = replace(OPTIONS, minutes=arguments.minutes, workers=arguments.workers)
    shares = [float(share) for share in arguments.shares.split(",")]
    folder = Path(tempfile.mkdtemp(prefix="swarm-soak-", dir=DURABLE))
    try:
        with running_server(durable=True, settings=SERVER, parent=DURABLE) as server:
            capacity, found = asyncio.run(measure(options, shares, server, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say_found(capacity, found)
    return int(any(each.wrong for each in found))


if __name__ == "__main__":
    sys.exit(main())
