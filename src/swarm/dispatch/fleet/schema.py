"""The fleet's tables: Procrastinate's own schema, unchanged, and one that says who takes part.

They hold nothing that must be kept: runs are rows of the store, a job is only a hint to look at
one, and hosts write themselves in anew.

Like the store's, this schema has a history of steps, each of which says what a Swarm must know to
go on beside it. Whoever comes first makes the tables; only :func:`upgrade` changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import distribution
from typing import Any, Final

from psycopg import AsyncConnection, sql

from swarm.kernel.errors import DatabaseError

VERSION: Final = 2
"""The number of steps."""
PROCRASTINATE: Final = "c70ec4b400a60ad9"
"""The start of the SHA-256 of the schema that the first step takes from the package. Another
release that changes it needs a step that brings what stands there up to it."""
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
INSERT INTO fleet_schema VALUES (1);
"""
_FORMATS = """
ALTER TABLE fleet_schema ADD COLUMN oldest integer NOT NULL DEFAULT 1;
ALTER TABLE fleet_hosts ADD COLUMN format_version integer NOT NULL DEFAULT 1;
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the schema's history."""

    script: str
    oldest: int
    """The version that a Swarm must know to go on when this step was made."""


def history() -> tuple[Step, ...]:
    """All steps, in order."""
    return (Step(procrastinate_schema() + _HOSTS, 1), Step(_FORMATS, 1))


async def prepare(connection: AsyncConnection[Any]) -> None:
    """Make the tables unless they are there.

    Raises:
        DatabaseError: they are of a version that this Swarm cannot work with.
        psycopg.Error: the database refused.
    """
    await _bring_up(connection, upgrades=False)


async def upgrade(connection: AsyncConnection[Any]) -> None:
    """Make the tables, or bring those that stand up to this Swarm's version.

    Raises:
        DatabaseError: they are of a version that this Swarm cannot work with.
        psycopg.Error: the database refused.
    """
    await _bring_up(connection, upgrades=True)


async def _bring_up(connection: AsyncConnection[Any], *, upgrades: bool) -> None:
    if _is_usable(await _versions(connection), upgrades=upgrades):
        return
    async with connection.transaction():
        # A transaction's lock, so that it is let go whatever pools connections in between.
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        found = await _versions(connection)
        if _is_usable(found, upgrades=upgrades):
            return
        steps = history()
        for step in steps[found[0] :]:
            await connection.execute(sql.SQL(step.script))
        await connection.execute(
            "UPDATE fleet_schema SET version = %s, oldest = %s",
            (len(steps), max(step.oldest for step in steps)),
        )


def _is_usable(found: tuple[int, int], *, upgrades: bool) -> bool:
    """Whether nothing is to be done; False if tables are to be made, or changed."""
    version, oldest = found
    if oldest > VERSION:
        raise DatabaseError(
            f"the fleet's tables are of version {version}, which needs a Swarm that knows version "
            f"{oldest}; this Swarm knows versions up to {VERSION}",
            remedy="stop this Swarm and install one as new as the one that upgraded the database",
        )
    if version in range(1, VERSION) and not upgrades:
        raise DatabaseError(
            f"the fleet's tables are of version {version}, and this Swarm needs version {VERSION}",
            remedy="run `swarm db migrate`: workers of the older Swarm may go on meanwhile",
        )
    return version >= VERSION


async def _versions(connection: AsyncConnection[Any]) -> tuple[int, int]:
    """The version of the tables that stand, and what a Swarm must know to use them; zeros if
    there are none."""
    cursor = await connection.execute("SELECT to_regclass('fleet_schema') IS NOT NULL")
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return 0, 0
    cursor = await connection.execute(
        "SELECT version, coalesce((to_jsonb(one)->>'oldest')::integer, 1) FROM fleet_schema AS one"
    )
    row = await cursor.fetchone()
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def procrastinate_schema() -> str:
    """Read without importing the package: its task runner is not used."""
    package = distribution("procrastinate")
    path = package.locate_file("procrastinate/sql/schema.sql")
    with open(str(path), encoding="utf-8") as file:  # noqa: PTH123 - a locator, not a Path
        return file.read()
