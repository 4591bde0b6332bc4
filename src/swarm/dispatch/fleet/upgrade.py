"""Upgrading a database that a fleet may be at work in."""

from __future__ import annotations

from contextlib import closing
from typing import Final, LiteralString

import psycopg

from swarm.dispatch.fleet.database import CONNECT_SECONDS, connect, unreachable
from swarm.dispatch.fleet.schema import upgrade
from swarm.dispatch.ports import HostInfo

_LIVING: Final[LiteralString] = """
SELECT host.id, host.role, host.pid, host.machine, host.version
FROM fleet_hosts AS host JOIN procrastinate_workers AS worker ON worker.id = host.worker_id
WHERE worker.last_heartbeat >= now() - make_interval(secs => host.lease_seconds)
ORDER BY host.id
"""
"""Columns that the first version had: it is asked before an upgrade."""


def living_hosts(url: str) -> list[HostInfo]:
    """The hosts and clients that are alive, whatever version the fleet's tables have. Blocks.

    Raises:
        DatabaseError: the database cannot be asked.
    """
    try:
        with closing(
            psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS)
        ) as connection:
            row = connection.execute("SELECT to_regclass('fleet_hosts') IS NOT NULL").fetchone()
            if row is None or not row[0]:
                return []
            return [HostInfo(*row) for row in connection.execute(_LIVING)]
    except psycopg.Error as error:
        raise unreachable(error) from None


async def upgrade_fleet(url: str) -> None:
    """Make the fleet's tables, or bring them up to this Swarm's version.

    Raises:
        DatabaseError: the database cannot be used.
    """
    connection = await connect(url)
    try:
        await upgrade(connection)
    except psycopg.Error as error:
        raise unreachable(error) from None
    finally:
        await connection.close()
