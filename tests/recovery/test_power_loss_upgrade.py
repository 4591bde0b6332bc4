"""The power fails while a database is upgraded: it is of one version or another, and whole."""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.store.sqlite import open_store
from swarm.store.sqlite.migration import MIGRATIONS
from tests.conftest import Scale
from tests.recovery.power import upgrade_program
from tests.recovery.power.recording import COMPILER, Recording

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
AGENTS = 500
AGENT_ROW = (
    "INSERT INTO agents (id, name, version, digest, path) "
    "VALUES ('agent_' || ?1, 'echo-' || ?1, '1.0.0', 'sha256:' || ?1, '/packages/a')"
)


@pytest.fixture
async def recording(memory: Path, recorder: Path) -> Recording:
    """The upgrade of a database of the first release, with something in it.

    Its process was killed: there is a log. For a new one, SQLite syncs the folder itself, and with
    it what else is new there.
    """
    recording = Recording(memory / "upgrade", recorder)
    old = memory / "old" / "registry.db"
    store = await open_store(old, Settings(home=memory), migrations=MIGRATIONS[:1])
    await store.close()
    with closing(sqlite3.connect(old)) as connection:
        with connection:
            connection.executemany(AGENT_ROW, [(number,) for number in range(AGENTS)])
        shutil.copytree(old.parent, recording.root / "registry")
    assert (recording.root / "registry" / "registry.db-wal").stat().st_size
    (recording.root / "told").touch()
    recording.run([sys.executable, upgrade_program.__file__, recording.root])
    return recording


def version(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (found,) = connection.execute("SELECT max(version) FROM schema_migrations").fetchone()
    return int(found)


async def test_an_upgrade_is_done_or_not_and_never_without_its_backup(
    recording: Recording, rng: random.Random, scale: Scale
) -> None:
    versions = set()
    for disk, state in recording.states(scale(small=30, full=200), rng):
        database = state / "registry" / "registry.db"
        found = version(database)
        versions.add(found)
        if disk.now("told"):
            assert found == len(MIGRATIONS)
        if found > 1:
            (backup,) = database.parent.glob("registry.db.backup-1-*Z")
            assert version(backup) == 1
            with closing(sqlite3.connect(backup)) as connection:
                count = connection.execute("SELECT count(*) FROM agents").fetchone()
            assert count == (AGENTS,)
        store = await open_store(database, Settings(home=state))
        assert len(await store.list_agents()) == AGENTS
        await store.close()
    assert {1, len(MIGRATIONS)} <= versions, "too few moments"
