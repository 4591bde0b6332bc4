"""What a step costs: `make bench`.

Prints, for one run of this program on this machine: the floor (a bare SQLite loop of durable
commits), a chain of no-op steps, and 200 runs of 5 steps at concurrency 50, without isolation and
with a fresh sandbox for every step. Compare rows of one run with each other, not across machines.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.engine.api import RunRequest
from swarm.kernel.configuration import load_settings
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunState

AGENT = """\
name: no-op
version: 1.0.0
runtime: {type: python, entry: main.py}
inputs: [{name: value, type: integer, default: 0}]
outputs: [{name: value, type: integer}]
"""

HANDLER = """\
async def handler(inputs):
    return {"value": inputs["value"] + 1}
"""


def chain_workflow(name: str, steps: int) -> str:
    """A workflow in which each step needs the one before it."""
    lines = [f"name: {name}", "version: 1.0.0", "steps:"]
    for index in range(steps):
        value = "0" if index == 0 else f'"${{steps.s{index - 1}.outputs.value}}"'
        lines += [f"  - id: s{index}", "    agent: no-op", f"    inputs: {{value: {value}}}"]
    return "\n".join(lines) + "\n"


async def prepare(swarm: Swarm, folder: Path, chain: int) -> None:
    """Register the no-op agent and the two workflows."""
    agent = folder / "no-op"
    agent.mkdir()
    (agent / "agent.yaml").write_text(AGENT)
    (agent / "main.py").write_text(HANDLER)
    await swarm.agents.register(agent)
    for name, steps in (("chain", chain), ("five", 5)):
        path = folder / name / "workflow.yaml"
        path.parent.mkdir()
        path.write_text(chain_workflow(name, steps))
        await swarm.workflows.register(path)


async def one_run(swarm: Swarm, workflow: str, isolation: Isolation) -> None:
    run = await swarm.runs.create(RunRequest(workflow, isolation=isolation))
    await swarm.runs.start(run.id)
    ended = await swarm.runs.wait(run.id)
    if ended.status is not RunState.SUCCEEDED:
        raise RuntimeError(f"{workflow} ended as {ended.status}: {ended.error}")


async def chain_cost(swarm: Swarm, isolation: Isolation, steps: int, repeats: int) -> float:
    """Milliseconds per step of a chain, the median of ``repeats`` runs."""
    await one_run(swarm, "five", isolation)
    costs = []
    for _ in range(repeats):
        start = time.perf_counter()
        await one_run(swarm, "chain", isolation)
        costs.append((time.perf_counter() - start) * 1000 / steps)
    return statistics.median(costs)


async def throughput(swarm: Swarm, isolation: Isolation, runs: int, concurrency: int) -> float:
    """Steps per second of ``runs`` runs of 5 steps, so many at once."""
    places = asyncio.Semaphore(concurrency)

    async def run() -> None:
        async with places:
            await one_run(swarm, "five", isolation)

    start = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(runs)))
    return runs * 5 / (time.perf_counter() - start)


def floor(folder: Path, commits: int, durability: str) -> float:
    """Milliseconds per durable commit of one row, by bare sqlite3."""
    connection = sqlite3.connect(folder / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {durability}")
    connection.execute("CREATE TABLE IF NOT EXISTS steps (id INTEGER PRIMARY KEY, document TEXT)")
    start = time.perf_counter()
    for _ in range(commits):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO steps (document) VALUES (?)", ("x" * 300,))
        connection.execute("COMMIT")
    cost = (time.perf_counter() - start) * 1000 / commits
    connection.close()
    return cost


def say(label: str, figure: str) -> None:
    sys.stdout.write(f"{label:<50} {figure}\n")
    sys.stdout.flush()


async def measure(settings: Settings, arguments: argparse.Namespace) -> None:
    """Print every row."""
    folder = settings.home.parent
    bare = floor(folder, 500, settings.durability)
    say(f"bare SQLite commit, synchronous={settings.durability}", f"{bare:8.2f} ms")
    async with open_swarm(settings, role="benchmark") as swarm:
        await prepare(swarm, folder, arguments.chain)
        for level, repeats, runs in (
            (Isolation.NONE, 5, arguments.runs),
            (Isolation.SANDBOX, 1, arguments.sandboxed_runs),
        ):
            name = "no isolation" if level is Isolation.NONE else "a fresh sandbox per step"
            cost = await chain_cost(swarm, level, arguments.chain, repeats)
            say(
                f"chain of {arguments.chain} steps, {name}",
                f"{cost:8.2f} ms per step ({cost / bare:.1f} x the bare commit)",
            )
            rate = await throughput(swarm, level, runs, arguments.concurrency)
            label = f"{runs} runs of 5 steps, {arguments.concurrency} at once, {name}"
            say(label, f"{rate:8.0f} steps/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chain", type=int, default=100, help="steps of the chain")
    parser.add_argument("--runs", type=int, default=200, help="runs without isolation")
    parser.add_argument("--sandboxed-runs", type=int, default=200, help="runs with sandboxes")
    parser.add_argument("--concurrency", type=int, default=50, help="runs at once")
    arguments = parser.parse_args()
    # Below the user's home, since /tmp may be a RAM disk, where nothing is durable.
    with tempfile.TemporaryDirectory(prefix=".swarm-bench-", dir=Path.home()) as name:
        settings = replace(load_settings(), home=Path(name) / "home")
        asyncio.run(measure(settings, arguments))


if __name__ == "__main__":
    main()
