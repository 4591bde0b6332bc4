"""PostgreSQL's tables are made once, upgraded on demand, and others' are left alone."""

from __future__ import annotations

import threading
from contextlib import closing

import psycopg
import pytest

from swarm.kernel.errors import DatabaseError, InvalidError
from swarm.kernel.settings import Settings
from swarm.store.postgres import open_store
from swarm.store.postgres.migration import MIGRATIONS, Migration, migrate, schema_status

NEXT = Migration(
    len(MIGRATIONS) + 1,
    "next",
    "ALTER TABLE agents ADD COLUMN extra TEXT; CREATE TABLE more (n INT);",
)
BROKEN = Migration(
    len(MIGRATIONS) + 1, "broken", "CREATE TABLE more (n INT); ALTER TABLE none ADD COLUMN x TEXT;"
)


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
