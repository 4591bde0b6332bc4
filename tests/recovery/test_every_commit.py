"""Random workflows whose run is left at one commit of its journal or another, and carried on.

What a killed process leaves is what it had committed. So a run is driven once to its end, and after
each commit the database is copied; each copy is then a home whose process has died at that moment.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import Phase
from hypothesis import strategies as st

from swarm.bootstrap import database
from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.engine.api import RunRequest
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation
from swarm.store.sqlite import SqliteStore, open_store
from tests.conftest import SCALE
from tests.recovery.kills.agents import write_agents
from tests.recovery.kills.home import Effect
from tests.recovery.kills.journal import query
from tests.recovery.kills.judging import check_effects, check_run, key_of
from tests.recovery.kills.workflows import draw_flow

EXAMPLES = 120 if SCALE == "full" else 4
RESUMED = 4
"""Copies of each run that are carried on; which, is drawn."""


class Copies:
    """Copies of a home's database, one after each commit."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.taken: list[bytes] = []

    def take(self) -> None:
        with closing(sqlite3.connect(self.database)) as source:
            self.taken.append(source.serialize())

    def put(self, copy: bytes) -> None:
        """Make a copy the home's database, which nobody has open."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.database}{suffix}").unlink(missing_ok=True)
        self.database.write_bytes(copy)


class CopyingStore(SqliteStore):
    """A real store that has a copy taken after each commit of a run."""

    copies: Copies

    async def commit(self, *arguments: Any, **named: Any) -> None:
        await super().commit(*arguments, **named)
        self.copies.take()


class Lab:
    """A home with the agents registered, as it is before each example."""

    def __init__(self, settings: Settings, copies: Copies) -> None:
        self.settings = settings
        self.copies = copies
        (self.empty,) = copies.taken
        self.logs = settings.home / "registry" / "logs" / "workflow-runs"

    @asynccontextmanager
    async def opened(self, *, copying: bool = False) -> AsyncIterator[Swarm]:
        async def open_copying(*arguments: Any, **named: Any) -> SqliteStore:
            store = await open_store(*arguments, **named)
            store.__class__ = CopyingStore
            store.copies = self.copies  # type: ignore[attr-defined]
            return store

        with pytest.MonkeyPatch.context() as patch:
            if copying:
                patch.setattr(database, "open_store", open_copying)
            async with open_swarm(self.settings, role="run") as swarm:
                yield swarm

    def effects(self, run_id: str) -> list[Effect]:
        file = self.logs / f"{run_id}.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        messages = [json.loads(line)["message"] for line in lines]
        words = [message.split() for message in messages if message.startswith("ledger ")]
        return [Effect(word, key, int(attempt)) for _, word, key, attempt, _ in words]


@pytest.fixture(scope="module")
def lab(memory: Path) -> Iterator[Lab]:
    folder = memory / "lab"
    settings = Settings(home=folder / "home", durability="normal")
    packages = write_agents(folder / "agents")

    async def register() -> Path:
        async with open_swarm(settings, role="run") as swarm:
            for package in packages:
                await swarm.agents.register(package)
            return swarm.home.database

    copies = Copies(asyncio.run(register()))
    copies.take()
    yield Lab(settings, copies)


@hypothesis.settings(max_examples=EXAMPLES, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@hypothesis.given(
    chance=st.randoms(use_true_random=False), number=st.integers(min_value=0, max_value=99)
)
def test_a_run_can_be_carried_on_from_each_of_its_commits(
    lab: Lab, chance: random.Random, number: int
) -> None:
    asyncio.run(carry_on_from_commits(lab, chance, number))


async def carry_on_from_commits(lab: Lab, chance: random.Random, number: int) -> None:
    flow = draw_flow("flow", chance, quick=True)
    shares = [chance.random() for _ in range(RESUMED)]
    file = lab.settings.home / "flow.yaml"
    file.write_text(flow.text())
    lab.copies.put(lab.empty)
    lab.copies.taken.clear()
    async with lab.opened(copying=True) as swarm:
        await swarm.workflows.register(file)
        request = RunRequest("flow", {"number": number}, isolation=Isolation.NONE)
        run = await swarm.runs.create(request)
        lab.copies.take()
        await swarm.runs.start(run.id)
        await swarm.runs.wait(run.id)
    home = lab.settings.home
    check_run(home, run.id, flow, number)
    check_effects(home, run.id, flow, lab.effects(run.id))
    copies = list(lab.copies.taken)
    # As shares of all: how many commits there are depends on which steps ended together.
    for share in shares:
        lab.copies.put(copies[int(share * len(copies))])
        finished, attempts = finished_steps(home, run.id), attempts_made(home, run.id)
        (lab.logs / f"{run.id}.jsonl").write_text("")
        async with lab.opened() as swarm:
            for resumed in await swarm.runs.resume():
                await swarm.runs.wait(resumed.id)
        check_run(home, run.id, flow, number)
        for effect in lab.effects(run.id):
            step = effect.key.partition(":")[2]
            assert step not in finished, "a finished step was executed again"
            assert effect.attempt > attempts.get(step, 0), "an attempt was made twice"
        assert finished.items() <= finished_steps(home, run.id).items()


def finished_steps(home: Path, run_id: str) -> dict[str, tuple[object, ...]]:
    rows = query(
        home,
        "SELECT * FROM step_executions WHERE run_id = ? "
        "AND status IN ('succeeded', 'failed', 'skipped')",
        run_id,
    )
    return {key_of(row): tuple(row) for row in rows}


def attempts_made(home: Path, run_id: str) -> dict[str, int]:
    """The number of each step's latest attempt, begun or ended."""
    found: dict[str, int] = {}
    for table in ("step_executions", "invocations"):
        for row in query(home, f"SELECT * FROM {table} WHERE run_id = ?", run_id):
            found[key_of(row)] = max(found.get(key_of(row), 0), row["attempt"])
    return found
