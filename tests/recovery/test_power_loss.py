"""The power fails at random moments: what was told as done is there, whole, and nothing is broken.

A program is run under a recorder of its writes and syncs; a model of a disk then makes states that
a loss of power could have left at random moments, and the real store opens each.
"""

from __future__ import annotations

import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from swarm.kernel.errors import SwarmError
from swarm.kernel.settings import Settings
from swarm.store.sqlite import open_store
from tests.conftest import Scale
from tests.recovery.power import journal_program
from tests.recovery.power.recording import COMPILER, Recording

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
TOLD_BYTES = 40_000
"""When the program is killed: that many bytes of lines that each tell of a commit."""


RecordJournal = Callable[[str], Recording]


@pytest.fixture(scope="module")
def record_journal(memory: Path, recorder: Path) -> RecordJournal:
    """Commits to a journal at a durability, recorded until the program was killed."""

    @cache
    def record(durability: str) -> Recording:
        recording = Recording(memory / durability, recorder)
        (recording.root / "registry").mkdir()
        told = recording.root / "told"
        told.touch()
        command = [sys.executable, journal_program.__file__, str(recording.root), durability]
        recording.run(command, lambda: told.stat().st_size >= TOLD_BYTES)
        return recording

    return record


async def judge(state: Path, told: bytes) -> str:
    """What is wrong with a state of the journal, in one word; nothing if all is well."""
    database = state / "registry" / "registry.db"
    acknowledged = {}
    for line in told.decode().splitlines():
        run_id, _, number = line.split()
        acknowledged[run_id] = int(number)
    try:
        store = await open_store(database, Settings(home=state))
        try:
            runs = {run.id: run for run in await store.unfinished_runs()}
            steps = {run_id: await store.list_steps(run_id) for run_id in runs}
        finally:
            await store.close()
        with closing(sqlite3.connect(database)) as connection:
            if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                return "damaged"
    except (SwarmError, sqlite3.DatabaseError):
        return "damaged"
    for run_id, run in runs.items():
        expected = ["succeeded"] * run.total_api_tokens + ["running"]
        if [str(step.status) for step in steps[run_id]] != expected:
            return "half"
    lost = any(
        run_id not in runs or runs[run_id].total_api_tokens < number
        for run_id, number in acknowledged.items()
    )
    return "lost" if lost else ""


async def verdicts(
    recording: Recording, count: int, rng: random.Random, forgets: tuple[str, ...] = ()
) -> Counter[str]:
    found: Counter[str] = Counter()
    for disk, state in recording.states(count, rng, forgets):
        found[await judge(state, disk.now("told"))] += 1
    return found


async def test_with_full_durability_nothing_that_was_told_is_lost(
    record_journal: RecordJournal, rng: random.Random, scale: Scale
) -> None:
    count = scale(small=60, full=1_000)
    assert await verdicts(record_journal("full"), count, rng) == {"": count}


async def test_with_normal_durability_the_last_commits_may_be_lost_but_nothing_breaks(
    record_journal: RecordJournal, rng: random.Random, scale: Scale
) -> None:
    """What is lost when the power fails is there when only the process dies."""
    count = scale(small=60, full=500)
    recording = record_journal("normal")
    found = await verdicts(recording, count, rng)
    assert found.keys() == {"", "lost"}
    disk, state = recording.end()
    assert await judge(state, disk.now("told")) == ""


@pytest.mark.parametrize(
    ("durability", "forgets", "wrong"),
    [
        ("off", (), {"lost", "damaged"}),
        ("full", ("registry.db-wal",), {"lost", "damaged", "half"}),
        ("full", ("registry.db",), {"lost", "damaged", "half"}),
        ("full", ("/",), {"lost", "damaged"}),
    ],
    ids=["no syncs", "log not synced", "database not synced", "folders not synced"],
)
async def test_losses_would_be_seen(
    record_journal: RecordJournal,
    rng: random.Random,
    scale: Scale,
    durability: str,
    forgets: tuple[str, ...],
    wrong: set[str],
) -> None:
    """The control: without the syncs, the same checks find that something is wrong."""
    found = await verdicts(record_journal(durability), scale(small=40, full=100), rng, forgets)
    assert found.keys() & wrong, found
    assert found.keys() <= {"", *wrong}, found
