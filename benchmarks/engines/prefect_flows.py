"""The work as flows of Prefect, measured against the server that `with_prefect.py` has started.

Its steps are not durable one by one: the state of a task is sent to the server in the background,
which keeps its database with `synchronous=NORMAL`. What the server has not recorded some time after
the chains is told. Runs asked for by another process are taken by a runner that polls.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from pathlib import Path

import work
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

RECORD_SECONDS = 30.0
"""How long the server may take to record what was sent to it."""
SERVE_SECONDS = 60.0
"""How long the runner may take to register what it serves."""
FIRST_STEPS = 2
"""Runs asked for by another process, at most: each takes many seconds."""
RECORDED = """\
SELECT count(*) FROM task_run
JOIN flow_run ON flow_run.id = task_run.flow_run_id JOIN flow ON flow.id = flow_run.flow_id
WHERE flow.name = 'run-chain' AND task_run.state_type = 'COMPLETED'
"""


@task(cache_policy=NO_CACHE)
async def no_op(value: int) -> int:
    return value + 1


@task(cache_policy=NO_CACHE)
async def clock() -> int:
    return time.monotonic_ns()


@flow
async def run_chain(steps: int) -> int:
    value = 0
    for _ in range(steps):
        value = await no_op(value)
    return value


@flow
async def run_fan(width: int) -> int:
    values = await asyncio.gather(*(no_op(value) for value in range(width)))
    return await no_op(len(values) - 1)


@flow
async def run_clock(path: str) -> None:
    Path(path).write_text(str(await clock()))


class Prefect:
    """See :class:`work.Engine`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.chained = 0

    async def chain(self, steps: int) -> int:
        self.chained += steps
        return await run_chain(steps)

    async def fan(self, width: int) -> int:
        return await run_fan(width)

    async def first_steps(self, count: int) -> list[float]:
        """By a process that serves the flow, and another that asks for its runs."""
        nowhere = asyncio.subprocess.DEVNULL
        serving = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "serve", stdout=nowhere, stderr=nowhere
        )
        try:
            asked = str(min(count, FIRST_STEPS))
            return await work.first_steps_of(__file__, "ask", str(self._folder), asked)
        finally:
            serving.kill()
            await serving.wait()

    async def tell_recorded(self) -> None:
        """Say how many of the chains' steps the server has recorded at last, if not all."""
        deadline = time.monotonic() + RECORD_SECONDS
        found = self._recorded()
        while found < self.chained and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            found = self._recorded()
        if found < self.chained:
            note = f"{found} of {self.chained} steps were recorded {RECORD_SECONDS:g} s later"
            work.tell("chain", note=note)

    def _recorded(self) -> int:
        path = self._folder / "prefect" / "prefect.db"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            return int(connection.execute(RECORDED).fetchone()[0])
        finally:
            connection.close()


def ask(folder: Path, count: int) -> None:
    """Be the process that asks for runs; the first is only to see the runner at work."""
    samples: list[float] = []
    deadline = time.monotonic() + SERVE_SECONDS
    while len(samples) <= count:
        answer = folder / f"began-{len(samples)}"
        asked = time.monotonic_ns()
        try:
            run_deployment("run-clock/bench", parameters={"path": str(answer)}, timeout=0)
        except ObjectNotFound:  # the runner has not registered it yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
            continue
        while not answer.exists() or not (text := answer.read_text()):
            time.sleep(0.05)
        samples.append(work.milliseconds_since(asked, int(text)))
    sys.stdout.write(json.dumps(samples[1:]) + "\n")


async def main() -> None:
    folder, sizes, works, _ = work.arguments()
    engine = Prefect(folder)
    if "chain" in works:
        await work.measure(engine, sizes, ["chain"])
        await engine.tell_recorded()
    await work.measure(engine, sizes, [name for name in works if name != "chain"])


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        run_clock.serve(name="bench", print_starting_message=False)
    elif sys.argv[1] == "ask":
        ask(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        asyncio.run(main())
