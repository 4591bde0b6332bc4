"""PostgreSQL's tables are made once, upgraded on demand, and others' are left alone."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing

import psycopg
import pytest
from msgspec.structs import replace

from swarm.kernel.errors import ConflictError, DatabaseError, InvalidError
from swarm.kernel.settings import Settings
from swarm.store.postgres import open_store
from swarm.store.postgres.migration import MIGRATIONS, migrate, schema_status
from swarm.store.records import EventRecord
from swarm.store.sql.schema import Migration

NEXT = Migration(
    len(MIGRATIONS) + 1,
    "next",
    "ALTER TABLE agents ADD COLUMN extra TEXT; CREATE TABLE more (n INT);",
)
BROKEN = Migration(
    len(MIGRATIONS) + 1, "broken", "CREATE TABLE more (n INT); ALTER TABLE none ADD COLUMN x TEXT;"
)


ADDED = Migration(
    len(MIGRATIONS) + 1,
    "more",
    f"-- Works with Swarms that know version {len(MIGRATIONS)}\n"
    "ALTER TABLE events ADD COLUMN sender TEXT NOT NULL DEFAULT '';",
)
EVENT = EventRecord("event_1", "paid", None, {}, "2030-01-01T00:00:00.000Z")


def execute(url: str, statement: str) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(statement)


def test_many_that_start_at_once_make_the_tables_once(
    postgres_url: str, settings: Settings
) -> None:
    barrier = threading.Barrier(6)
    found: list[object] = []

    def start() -> None:
        barrier.wait()
        try:
            found.append(migrate(postgres_url, settings, upgrade=False).version)
        except DatabaseError as error:
            found.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [len(MIGRATIONS)] * 6
    status = schema_status(postgres_url, settings)
    assert [one.name for one in status.applied] == [one.name for one in MIGRATIONS]


async def test_an_older_database_is_upgraded_by_command_alone(
    postgres_url: str, settings: Settings
) -> None:
    assert schema_status(postgres_url, settings).version == 0
    migrate(postgres_url, settings)
    newer = (*MIGRATIONS, NEXT)
    with pytest.raises(DatabaseError, match=f"needs version {NEXT.version}") as refused:
        await open_store(postgres_url, settings, migrations=newer)
    assert "swarm db migrate" in str(refused.value.remedy)
    assert migrate(postgres_url, settings, migrations=newer).version == NEXT.version
    await (await open_store(postgres_url, settings, migrations=newer)).close()
    with pytest.raises(DatabaseError, match="knows versions up to"):
        await open_store(postgres_url, settings)


async def test_who_has_the_database_open_goes_on_if_the_upgrade_allows_it(
    postgres_url: str, settings: Settings
) -> None:
    def refuse(oldest: int) -> None:
        raise AssertionError("nobody is in the way")

    older = await open_store(postgres_url, settings)
    await older.add_event(EVENT)
    assert await older.find_events("paid", None, "", 10, "default") == [EVENT]
    newer = (*MIGRATIONS, ADDED)
    await asyncio.to_thread(migrate, postgres_url, settings, migrations=newer, refuse=refuse)
    await older.add_event(replace(EVENT, id="event_2"))
    assert len(await older.find_events("paid", None, "", 10, "default")) == 2
    await older.close()
    await (await open_store(postgres_url, settings)).close()
    assert schema_status(postgres_url, settings).fitness == "newer"


async def test_who_has_the_database_open_is_refused_if_the_upgrade_does_not_allow_it(
    postgres_url: str, settings: Settings
) -> None:
    older = await open_store(postgres_url, settings)
    await older.add_event(EVENT)
    assert await older.find_events("paid", None, "", 10, "default") == [EVENT]
    asked: list[int] = []
    await asyncio.to_thread(
        migrate, postgres_url, settings, migrations=(*MIGRATIONS, NEXT), refuse=asked.append
    )
    assert asked == [NEXT.version]
    needs = f"needs a Swarm that knows version {NEXT.version}"
    with pytest.raises(DatabaseError, match=needs):
        await older.add_event(replace(EVENT, id="event_2"))
    with pytest.raises(DatabaseError, match=needs):
        await older.find_events("paid", None, "", 10, "default")
    await older.close()
    assert schema_status(postgres_url, settings).fitness == "too new"


def test_an_upgrade_that_is_refused_changes_nothing(postgres_url: str, settings: Settings) -> None:
    def refuse(oldest: int) -> None:
        raise ConflictError(f"not while they do not know {oldest}")

    migrate(postgres_url, settings)
    with pytest.raises(ConflictError, match=f"do not know {NEXT.version}"):
        migrate(postgres_url, settings, migrations=(*MIGRATIONS, NEXT), refuse=refuse)
    assert schema_status(postgres_url, settings).fitness == "current"


def test_a_migration_that_fails_changes_nothing(postgres_url: str, settings: Settings) -> None:
    migrate(postgres_url, settings)
    with pytest.raises(DatabaseError):
        migrate(postgres_url, settings, migrations=(*MIGRATIONS, BROKEN))
    assert schema_status(postgres_url, settings).version == len(MIGRATIONS)
    migrate(postgres_url, settings, migrations=(*MIGRATIONS, NEXT))


@pytest.mark.parametrize(
    "foreign",
    [
        "CREATE TABLE workflows (id TEXT, project_id TEXT)",
        "CREATE TABLE schema_migrations (version TEXT); CREATE TABLE agents (project_id TEXT)",
    ],
)
def test_tables_of_others_are_left_alone(
    postgres_url: str, settings: Settings, foreign: str
) -> None:
    execute(postgres_url, foreign)
    with pytest.raises(DatabaseError, match="not Swarm's"):
        migrate(postgres_url, settings)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda url: url.replace("127.0.0.1:", "127.0.0.1:1"), DatabaseError),
        (lambda url: url.rpartition("/")[0] + "/no_such_database", DatabaseError),
        (lambda url: "no address of hunter2", InvalidError),
        (lambda url: url.replace("swarm:", "swarm:hunter2"), DatabaseError),
    ],
)
async def test_no_message_tells_the_password(
    postgres_url: str, settings: Settings, change: object, error: type[Exception]
) -> None:
    assert callable(change)
    with pytest.raises(error) as failed:
        await open_store(change(postgres_url), settings)
    password = postgres_url.partition("swarm:")[2].partition("@")[0]
    for text in (str(failed.value), str(getattr(failed.value, "remedy", ""))):
        assert "hunter2" not in text
        assert password not in text
