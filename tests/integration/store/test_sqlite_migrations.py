"""Making and upgrading databases."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import ConflictError, DatabaseError
from swarm.kernel.settings import Settings
from swarm.store.records import EventRecord, RunFilter, RunState
from swarm.store.sql.schema import Migration, load_migrations
from swarm.store.sqlite import open_store
from swarm.store.sqlite.migration import MIGRATIONS, schema_status, statements

AGENT_ROW = (
    "INSERT INTO agents (id, name, version, digest, path) "
    "VALUES ('agent_1', 'echo', '1.0.0', 'sha256:a', '/packages/a')"
)
NEXT = Migration(
    len(MIGRATIONS) + 1,
    "colours",
    """
    -- Two statements; a trigger holds a semicolon.
    ALTER TABLE agents ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey';
    CREATE TRIGGER paint AFTER INSERT ON agents BEGIN
        UPDATE agents SET colour = 'red; or so' WHERE id = new.id;
    END;
    -- The end.
    """,
)
BROKEN = Migration(NEXT.version, "broken", "CREATE TABLE half (x);\nDROP TABLE nowhere;\n")
DANGLING = Migration(NEXT.version, "dangling", "UPDATE agents SET id = id || '_renamed';\n")


ADDED = Migration(
    NEXT.version,
    "more",
    f"-- Works with Swarms that know version {len(MIGRATIONS)}\n"
    "ALTER TABLE events ADD COLUMN sender TEXT NOT NULL DEFAULT '';\n",
)
EVENT = EventRecord("event_1", "paid", None, {}, "2030-01-01T00:00:00.000Z")


def versions(database: Path) -> list[int]:
    with closing(sqlite3.connect(database)) as connection:
        return [
            version for (version,) in connection.execute("SELECT version FROM schema_migrations")
        ]


def backups(database: Path) -> list[Path]:
    return sorted(database.parent.glob("registry.db.backup-*"))


async def make_first_version(database: Path, settings: Settings) -> None:
    """A database of the first release with something in it."""
    store = await open_store(database, settings, migrations=MIGRATIONS[:1])
    await store.close()
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(AGENT_ROW)


async def test_a_new_database_has_every_migration_and_no_backup(
    database: Path, settings: Settings
) -> None:
    store = await open_store(database.parent / "folder" / "registry.db", settings)
    await store.close()
    made = database.parent / "folder" / "registry.db"
    assert versions(made) == [migration.version for migration in MIGRATIONS]
    assert made.stat().st_mode & 0o777 == 0o600
    assert backups(made) == []
    with closing(sqlite3.connect(made)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_an_empty_file_becomes_a_database(database: Path, settings: Settings) -> None:
    database.touch()
    store = await open_store(database, settings)
    assert await store.list_agents() == []
    await store.close()


async def test_an_upgrade_keeps_the_data_and_backs_up_first(
    database: Path, settings: Settings
) -> None:
    await make_first_version(database, settings)
    store = await open_store(database, settings, migrations=[*MIGRATIONS, NEXT])
    (agent,) = await store.list_agents()
    assert agent.id == "agent_1"
    await store.close()
    assert versions(database)[-1] == NEXT.version

    (backup,) = backups(database)
    assert backup.name.startswith("registry.db.backup-1-")
    assert backup.stat().st_mode & 0o777 == 0o600
    assert versions(backup) == [1]
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT id FROM agents").fetchall() == [("agent_1",)]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    store = await open_store(database, settings, migrations=[*MIGRATIONS, NEXT])
    await store.close()
    assert backups(database) == [backup], "nothing to do, nothing to back up"


async def test_runs_of_before_the_workflow_language_are_kept(
    database: Path, settings: Settings
) -> None:
    """Their parent was the run that they retried."""
    store = await open_store(database, settings, migrations=MIGRATIONS[:3])
    await store.close()
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(AGENT_ROW)
        connection.execute(
            "INSERT INTO workflows (id, name, version, digest, path, steps) "
            "VALUES ('wf_1', 'w', '1.0.0', 'sha256:w', '/w', '[]')"
        )
        connection.execute(
            "INSERT INTO workflow_runs (id, workflow_id, workflow_name, workflow_version, status, "
            "inputs, parent_run_id, completed_at) VALUES "
            "('run_1', 'wf_1', 'w', '1.0.0', 'failed', '{\"a\":1}', 'run_0', 'x')"
        )
        connection.execute(
            "INSERT INTO step_executions (id, run_id, step_id, status, outputs) "
            "VALUES ('step_1', 'run_1', 's', 'succeeded', '{\"b\":2}')"
        )
        connection.execute(
            "INSERT INTO invocations (id, agent_id, agent_name, agent_version, digest, status, "
            "run_id) VALUES ('inv_1', 'agent_1', 'echo', '1.0.0', 'sha256:a', 'ok', 'run_1')"
        )
    store = await open_store(database, settings)
    run = await store.get_run("run_1")
    assert run is not None
    assert (run.origin_run_id, run.parent_run_id, run.inputs) == ("run_0", None, {"a": 1})
    assert (run.labels, run.depth, run.priority, run.workflows) == ({}, 0, 0, {})
    (step,) = await store.list_steps("run_1")
    assert (step.outputs, step.attempt, step.wait_kind) == ({"b": 2}, 0, None)
    (invocation,) = await store.list_invocations("run_1")
    assert (invocation.status, invocation.tokens) == ("ok", 0)
    assert await store.list_runs(RunFilter(called=False, states=(RunState.FAILED,))) == [run]
    assert await store.purge_runs("y") == ["run_1"]
    await store.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("migration", [BROKEN, DANGLING])
async def test_a_failing_upgrade_leaves_the_database_as_it_was(
    database: Path, settings: Settings, migration: Migration
) -> None:
    await make_first_version(database, settings)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO invocations (id, agent_id, agent_name, agent_version, digest, status) "
            "VALUES ('inv_1', 'agent_1', 'echo', '1.0.0', 'sha256:a', 'ok')"
        )
    with pytest.raises(DatabaseError):
        await open_store(database, settings, migrations=[*MIGRATIONS, migration])
    assert versions(database) == [item.version for item in MIGRATIONS]
    with closing(sqlite3.connect(database)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert "half" not in names
        assert connection.execute("SELECT id FROM agents").fetchone() == ("agent_1",)
    store = await open_store(database, settings)
    await store.close()


async def test_many_openers_at_once_all_succeed(database: Path, settings: Settings) -> None:
    patient = replace(settings, database_timeout_seconds=20)
    stores = await asyncio.gather(*(open_store(database, patient) for _ in range(8)))
    await asyncio.gather(*(store.close() for store in stores))
    upgrade = [*MIGRATIONS, NEXT]
    stores = await asyncio.gather(
        *(open_store(database, patient, migrations=upgrade) for _ in range(8))
    )
    await asyncio.gather(*(store.close() for store in stores))
    assert versions(database) == [migration.version for migration in upgrade]
    assert len(backups(database)) == 1


async def test_a_newer_database_is_refused_untouched(database: Path, settings: Settings) -> None:
    store = await open_store(database, settings, migrations=[*MIGRATIONS, NEXT])
    await store.close()
    before = database.read_bytes()
    with pytest.raises(DatabaseError, match=f"of version {NEXT.version}") as caught:
        await open_store(database, settings)
    assert "newer Swarm" in str(caught.value.remedy)
    assert database.read_bytes() == before
    assert backups(database) == []


async def test_who_has_the_database_open_goes_on_if_the_upgrade_allows_it(
    database: Path, settings: Settings
) -> None:
    def refuse(oldest: int) -> None:
        raise AssertionError("nobody is in the way")

    older = await open_store(database, settings)
    newer = await open_store(database, settings, migrations=[*MIGRATIONS, ADDED], refuse=refuse)
    await older.add_event(EVENT)
    assert await newer.find_events("paid", None, "", 10, "default") == [EVENT]
    await older.close()
    again = await open_store(database, settings)
    await again.close()
    await newer.close()
    assert schema_status(database, settings).fitness == "newer"
    assert versions(database)[-1] == ADDED.version


async def test_who_has_the_database_open_is_refused_if_the_upgrade_does_not_allow_it(
    database: Path, settings: Settings
) -> None:
    older = await open_store(database, settings)
    await older.add_event(EVENT)
    newer = await open_store(database, settings, migrations=[*MIGRATIONS, NEXT])
    with pytest.raises(DatabaseError, match=f"needs a Swarm that knows version {NEXT.version}"):
        await older.add_event(replace(EVENT, id="event_2"))
    assert await newer.find_events("paid", None, "", 10, "default") == [EVENT]
    await older.close()
    await newer.close()
    assert schema_status(database, settings).fitness == "too new"


async def test_an_upgrade_that_older_ones_cannot_work_with_may_be_refused(
    database: Path, settings: Settings
) -> None:
    def refuse(oldest: int) -> None:
        raise ConflictError(f"not while they do not know {oldest}")

    await (await open_store(database, settings)).close()
    with pytest.raises(ConflictError, match=f"do not know {NEXT.version}"):
        await open_store(database, settings, migrations=[*MIGRATIONS, NEXT], refuse=refuse)
    assert versions(database)[-1] == len(MIGRATIONS)
    assert backups(database) == []


def test_migrations_are_numbered_without_gaps(tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE a (x);\n")
    (tmp_path / "0003_three.sql").write_text("CREATE TABLE b (x);\n")
    with pytest.raises(ValueError, match="should be number 0002"):
        load_migrations(tmp_path)
    assert [migration.version for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_statements_are_told_apart() -> None:
    told_apart = list(statements(NEXT))
    assert len(told_apart) == 2
    assert told_apart[1].rstrip().endswith("END;")
    with pytest.raises(ValueError, match="middle of a statement"):
        list(statements(Migration(1, "cut", "CREATE TABLE a (\n")))
