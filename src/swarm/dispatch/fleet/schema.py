"""The fleet's tables: Procrastinate's own schema, unchanged, and one that says who takes part.

They hold nothing that must be kept: runs are rows of the store, a job is only a hint to look at
one, and hosts write themselves in anew.
"""

from __future__ import annotations

from importlib.metadata import distribution
from typing import Any

from psycopg import AsyncConnection, sql

VERSION = 1
"""Raised whenever this schema, or the release of Procrastinate that made it, changes."""
_LOCK = 0x5357_4152_4D01
"""The advisory lock under which the schema is made; any number that nobody else uses."""
_HOSTS = """
CREATE TABLE fleet_schema (version integer NOT NULL);
CREATE TABLE fleet_hosts (
    id text PRIMARY KEY,
    worker_id bigint NOT NULL UNIQUE REFERENCES procrastinate_workers (id) ON DELETE CASCADE,
    role text NOT NULL,
    machine text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    labels text[] NOT NULL,
    lease_seconds double precision NOT NULL,
    joined_at timestamptz NOT NULL DEFAULT now()
);
"""


async def prepare(connection: AsyncConnection[Any]) -> None:
    """Make the tables unless they are there.

    Raises:
        psycopg.Error: the database refused.
    """
    if await _version(connection) is not None:
        return
    async with connection.transaction():
        # A transaction's lock, so that it is let go whatever pools connections in between.
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        if await _version(connection) is None:
            await connection.execute(sql.SQL(_procrastinate_schema()))
            await connection.execute(_HOSTS)
            await connection.execute("INSERT INTO fleet_schema VALUES (%s)", (VERSION,))


async def _version(connection: AsyncConnection[Any]) -> int | None:
    """The version of the tables that stand; None if there are none."""
    cursor = await connection.execute("SELECT to_regclass('fleet_schema') IS NOT NULL")
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return None
    cursor = await connection.execute("SELECT version FROM fleet_schema")
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


def _procrastinate_schema() -> str:
    """Read without importing the package: its task runner is not used."""
    package = distribution("procrastinate")
    path = package.locate_file("procrastinate/sql/schema.sql")
    with open(str(path), encoding="utf-8") as file:  # noqa: PTH123 - a locator, not a Path
        return file.read()
