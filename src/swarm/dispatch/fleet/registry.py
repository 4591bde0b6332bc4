"""Who takes part, and who still does: rows that their hosts keep alive, by the database's clock.

A host renews its heartbeat every quarter of its lease. Once a whole lease has passed without, it is
dead for good: a late heartbeat does not bring it back. A host that could not renew stops what it
drives when :data:`FENCE` of its lease has passed by its own clock, so before others take over.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Final, LiteralString

from swarm.dispatch.fleet.database import Asking
from swarm.dispatch.ports import HostInfo

BEATS_PER_LEASE = 4
FENCE = 0.8

_ALIVE: Final[LiteralString] = (
    "worker.last_heartbeat >= now() - make_interval(secs => host.lease_seconds)"
)
_REGISTER: Final[LiteralString] = """
INSERT INTO fleet_hosts
    (id, worker_id, role, machine, pid, version, labels, format_version, lease_seconds)
SELECT %s, worker_id, %s, %s, %s, %s, %s::text[], %s, %s FROM procrastinate_register_worker_v1()
"""
_BEAT: Final[LiteralString] = f"""
WITH beat AS (
    UPDATE procrastinate_workers AS worker SET last_heartbeat = now()
    FROM fleet_hosts AS host
    WHERE host.id = %s AND worker.id = host.worker_id AND {_ALIVE}
    RETURNING host.id
)
SELECT host.id, host.role, host.pid, host.machine, host.version, host.labels,
       host.format_version, {_ALIVE} OR host.id IN (SELECT id FROM beat),
       EXISTS (SELECT 1 FROM beat)
FROM fleet_hosts AS host JOIN procrastinate_workers AS worker ON worker.id = host.worker_id
ORDER BY host.id
"""
_LIST: Final[LiteralString] = f"""
SELECT host.id, host.role, host.pid, host.machine, host.version, host.labels,
       host.format_version, {_ALIVE}, TRUE
FROM fleet_hosts AS host JOIN procrastinate_workers AS worker ON worker.id = host.worker_id
ORDER BY host.id
"""
_IS_ALIVE: Final[LiteralString] = f"""
SELECT 1 FROM fleet_hosts AS host
JOIN procrastinate_workers AS worker ON worker.id = host.worker_id
WHERE host.id = %s AND {_ALIVE}
"""
_FORGET: Final[LiteralString] = """
DELETE FROM procrastinate_workers
WHERE id IN (SELECT worker_id FROM fleet_hosts WHERE id = ANY(%s))
"""


class Census:
    """What a heartbeat found."""

    def __init__(self, rows: list[tuple[Any, ...]], own: str | None = None) -> None:
        hosts = [(_info(row), bool(row[7])) for row in rows]
        self.living = [info for info, alive in hosts if alive]
        """Oldest first, this process included."""
        self.dead = [info for info, alive in hosts if not alive]
        """Those whose lease has run out and that nobody has cleared away yet."""
        self.is_renewed = own is not None and any(row[0] == own and row[8] for row in rows)
        """Whether this process's own lease was renewed."""


class Registry:
    """The rows of the hosts."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def register(
        self,
        host_id: str,
        role: str,
        version: str,
        labels: tuple[str, ...],
        format_version: int,
        lease: float,
    ) -> None:
        """Write this process in."""
        who = (host_id, role, socket.gethostname(), os.getpid(), version)
        values = (*who, list(labels), format_version, lease)
        await self._asking.rows(_REGISTER, values)

    async def set_role(self, host_id: str, role: str) -> None:
        await self._asking.rows("UPDATE fleet_hosts SET role = %s WHERE id = %s", (role, host_id))

    async def beat(self, host_id: str, seconds: float) -> Census:
        """Renew the lease, unless it has run out, and look who lives."""
        return Census(await self._asking.rows(_BEAT, (host_id,), seconds=seconds), host_id)

    async def census(self) -> Census:
        return Census(await self._asking.rows(_LIST))

    async def is_alive(self, host_id: str) -> bool:
        return bool(await self._asking.rows(_IS_ALIVE, (host_id,)))

    async def forget(self, host_ids: list[str]) -> None:
        """Remove hosts; runs that they left have been looked for by now."""
        await self._asking.rows(_FORGET, (host_ids,))


def _info(row: tuple[Any, ...]) -> HostInfo:
    host_id, role, pid, machine, version, labels, format_version = row[:7]
    return HostInfo(host_id, role, pid, machine, version, tuple(labels), format_version)
