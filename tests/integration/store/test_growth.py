"""A long history costs neither the journal nor the reader anything that is felt."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.clock import now_text
from swarm.kernel.ids import new_id
from swarm.kernel.settings import Settings
from swarm.store.ports import Store
from swarm.store.records import (
    NewRun,
    RunAttribute,
    RunChanges,
    RunFilter,
    RunRecord,
    RunState,
    StepState,
)
from swarm.store.sqlite import open_store
from tests.integration.store.long_history import (
    STEPS_PER_RUN,
    History,
    fill,
    invocation,
    record_template,
    step,
    workflow_name,
)

pytestmark = pytest.mark.alone
MAX_GROWTH = 1.3
"""The cost of a step beside a long history, as a multiple of that in an empty database."""
ATTEMPTS = 3
"""How often it is measured, while it is more than that."""
MAX_READ_MS = 50
"""Opening, listing, and each filter."""
RUNS_PER_ROUND = 6
REPEATS = 5

PROD, LATE, RARE = (
    RunAttribute("label", name, value)
    for name, value in (("env", "prod"), ("half", "late"), ("rare", "yes"))
)


def order(number: int) -> RunAttribute:
    return RunAttribute("input", "order", f"order-{number}")


async def record_run(store: Store) -> None:
    """What the engine has the journal do for one run: each commit ends a step, starts the next."""
    run = RunRecord(new_id("run"), "wf_0", workflow_name(0), "1.0.0", inputs={"m": "x" * 200})
    steps = [step(run, number) for number in range(STEPS_PER_RUN)]
    attributes = (PROD, RunAttribute("input", "order", run.id))
    await store.create_run(NewRun(run, tuple(steps), attributes))
    await store.claim_run(run.id, "host_1", None)
    started = replace(steps[0], status=StepState.RUNNING, started_at=now_text())
    await store.commit(run.id, 1, RunChanges((started,), run={"status": RunState.RUNNING}))
    for number, current in enumerate(steps):
        time_text = now_text()
        done = replace(
            current, status=StepState.SUCCEEDED, completed_at=time_text, outputs={"o": "y" * 200}
        )
        following = [
            replace(one, status=StepState.RUNNING, started_at=time_text)
            for one in steps[number + 1 : number + 2]
        ]
        ended = {} if following else {"status": RunState.SUCCEEDED, "completed_at": time_text}
        changes = RunChanges((done, *following), (invocation(run, number),), ended)
        await store.commit(run.id, 1, changes)


async def at_once(store: Store) -> None:
    await asyncio.gather(*(record_run(store) for _ in range(RUNS_PER_ROUND)))


async def in_turn(store: Store) -> None:
    for _ in range(RUNS_PER_ROUND):
        await record_run(store)


@dataclass(frozen=True)
class Cost:
    """Of one step, in microseconds."""

    wall: float
    processor: float


async def compare(
    work: Callable[[Store], Awaitable[None]], stores: list[Store], rounds: int
) -> list[Cost]:
    """The median cost per step in each store, measured in alternation."""
    times: list[list[tuple[float, float]]] = [[] for _ in stores]
    for number in range(rounds):
        for place, store in list(enumerate(stores))[:: 1 if number % 2 else -1]:
            wall, processor = time.perf_counter(), time.process_time()
            await work(store)
            spent = time.perf_counter() - wall, time.process_time() - processor
            times[place].append(spent)
    each = 1e6 / (RUNS_PER_ROUND * STEPS_PER_RUN)
    return [
        Cost(*(statistics.median(column) * each for column in zip(*one, strict=True)))
        for one in times
    ]


def filters(history: History) -> dict[str, RunFilter]:
    late, end = history.moment(0.5), history.moment(0.5001)
    every = {
        "all": RunFilter(),
        "not called": RunFilter(called=False),
        "workflow": RunFilter(workflow=workflow_name(3), called=False),
        "common state": RunFilter(states=(RunState.SUCCEEDED,)),
        "rare state": RunFilter(states=(RunState.FAILED, RunState.CANCELLED)),
        "state of none": RunFilter(states=(RunState.WAITING,)),
        "since": RunFilter(created_after=late, called=False),
        "until": RunFilter(created_before=late),
        "a short time": RunFilter(created_after=late, created_before=end, called=False),
        "common label": RunFilter(attributes=(PROD,)),
        "rare label": RunFilter(attributes=(RARE,)),
        "label of none": RunFilter(attributes=(RunAttribute("label", "env", "none"),)),
        "input": RunFilter(attributes=(order(history.runs // 2),)),
        "label and input": RunFilter(attributes=(PROD, order(history.runs // 2))),
        "label and rare label": RunFilter(attributes=(PROD, RARE)),
        "label and state of none": RunFilter(attributes=(PROD,), states=(RunState.WAITING,)),
        "label and rare state": RunFilter(attributes=(PROD,), states=(RunState.FAILED,)),
        "label, workflow, time": RunFilter(
            attributes=(PROD,), workflow=workflow_name(4), created_before=late, called=False
        ),
        "label, time": RunFilter(attributes=(PROD,), created_after=late, created_before=end),
    }
    return {name: replace(one, documents=False) for name, one in every.items()}


async def milliseconds(call: Callable[[], Awaitable[Any]]) -> float:
    """The median of a few calls."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        await call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


async def list_as_a_command(home: Path) -> float:
    """What `swarm runs list` takes as a whole, in milliseconds."""
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "swarm", "runs", "list",
        env={**os.environ, "SWARM_HOME": str(home)}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert b"flow-" in output
    return (time.perf_counter() - started) * 1000


async def test_cost_does_not_grow_with_the_history(
    tmp_path: Path, scale: Any, record_property: Callable[[str, object], None]
) -> None:
    """The journal's cost is judged by its processor time: other programs that are busy at the same
    moment do not count. At full scale the clock on the wall must agree. Busy neighbours cost
    processor time, too, by what they drive out of the caches: what looks like growth is measured
    again, and growth that is there shows each time."""
    runs = scale(small=4_000, full=200_000)
    settings = Settings(home=tmp_path, durability="normal", database_timeout_seconds=30)
    homes = [tmp_path / name for name in ("empty", "full")]
    stores: list[Store] = []
    for home in homes:
        store = await open_store(home / "registry" / "registry.db", settings)
        await record_template(store)
        stores.append(store)
    database = homes[1] / "registry" / "registry.db"
    history = await asyncio.to_thread(fill, database, runs)

    for work in (at_once, in_turn):
        for _ in range(ATTEMPTS):
            empty, full = await compare(work, stores, rounds=scale(small=41, full=101))
            growth = full.processor / empty.processor
            if growth < MAX_GROWTH:
                break
        record_property(
            "measured",
            f"{work.__name__}, after {runs * STEPS_PER_RUN:,} steps: per step "
            f"{full.processor:.0f} instead of {empty.processor:.0f} µs of processor time "
            f"({growth:.2f}), {full.wall:.0f} instead of {empty.wall:.0f} µs of time "
            f"({full.wall / empty.wall:.2f})",
        )
        assert growth < MAX_GROWTH
        assert full.wall / empty.wall < scale(small=100, full=1) * MAX_GROWTH

    async def open_and_close() -> None:
        await (await open_store(database, settings)).close()

    took = {"open": await milliseconds(open_and_close)}
    for name, one in filters(history).items():
        took[name] = await milliseconds(lambda one=one: stores[1].list_runs(one))
    record_property("measured", ", ".join(f"{name} {ms:.1f} ms" for name, ms in took.items()))
    assert {name: ms for name, ms in took.items() if ms > MAX_READ_MS} == {}
    for store in stores:
        await store.close()
    commands = [await list_as_a_command(home) for home in homes]
    record_property("measured", "`swarm runs list`: {:.0f} and {:.0f} ms".format(*commands))
