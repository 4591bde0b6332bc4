"""Queries about registered agents and the permissions granted to their packages."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.store.records import NOT_HERE, AgentRecord, GrantRecord
from swarm.store.sql.connection import Connection, Value
from swarm.store.sql.kept import Kept
from swarm.store.sql.rows import AGENTS, GRANTS
from swarm.store.versions import version_key

_SELECT = f"SELECT {AGENTS.column_list} FROM agents"
_STANDING = "SELECT id, updated_at FROM agents WHERE project_id = ? AND active = 1"
_INSERT = AGENTS.insert()
_KEPT = {"id", "name", "version", "digest", "created_at", "project_id"}
# What an import claimed about a digest is made good by who registers it.
_CHANGES = ", ".join(f"{name} = excluded.{name}" for name in AGENTS.columns if name not in _KEPT)
_PUT = (
    f"{_INSERT} ON CONFLICT (project_id, name, version, digest) DO UPDATE SET {_CHANGES} "
    f"WHERE agents.path = '{NOT_HERE}'"
)
_ADOPT = f"{_INSERT} ON CONFLICT DO NOTHING"
_INSERT_GRANT = f"{GRANTS.insert()} ON CONFLICT (project_id, digest, permission, value) DO NOTHING"


def add(
    connection: Connection,
    agent: AgentRecord,
    row: Sequence[Value],
    grants: Sequence[Sequence[Value]],
) -> AgentRecord:
    """Make ``agent``'s digest the active one of its version; return the record that stands."""
    connection.execute(
        "UPDATE agents SET active = 0, updated_at = ? WHERE project_id = ? AND name = ? "
        "AND version = ? AND active = 1 AND digest <> ?",
        (agent.updated_at, agent.project_id, agent.name, agent.version, agent.digest),
    )
    key = (agent.project_id, agent.name, agent.version, agent.digest)
    same = "WHERE project_id = ? AND name = ? AND version = ? AND digest = ?"
    connection.execute(_PUT, row)
    connection.execute(
        f"UPDATE agents SET active = 1, updated_at = ?, path = ?, source = ?, "
        f"environment_digest = ? {same}",
        (agent.updated_at, agent.path, agent.source, agent.environment_digest, *key),
    )
    connection.executemany(_INSERT_GRANT, grants)
    return AGENTS.decode(connection.execute(f"{_SELECT} {same}", key).fetchone())


def adopt(connection: Connection, agent: AgentRecord, row: Sequence[Value]) -> str:
    """Insert ``agent`` unless it is there, by its id or as the same; the id of what stands."""
    connection.execute(_ADOPT, row)
    (found,) = connection.execute(
        "SELECT coalesce((SELECT id FROM agents WHERE id = ?), (SELECT id FROM agents "
        "WHERE project_id = ? AND name = ? AND version = ? AND digest = ?))",
        (agent.id, agent.project_id, agent.name, agent.version, agent.digest),
    ).fetchone()
    return str(found)


def remove(
    connection: Connection, name: str, version: str | None, project_id: str, time: str
) -> int:
    return connection.execute(
        "UPDATE agents SET active = 0, updated_at = ? WHERE project_id = ? AND name = ? "
        f"AND active = 1{'' if version is None else ' AND version = ?'}",
        (time, project_id, name, *(() if version is None else (version,))),
    ).rowcount


def get(connection: Connection, agent_id: str) -> AgentRecord | None:
    row = connection.execute(f"{_SELECT} WHERE id = ?", (agent_id,)).fetchone()
    return AGENTS.decode(row) if row else None


def list_active(
    connection: Connection, kept: Kept[AgentRecord], name: str | None, project_id: str
) -> list[AgentRecord]:
    """The active agents, of one name or all, by name and version."""
    if name is None:
        rows = connection.execute(_STANDING, (project_id,))
    else:
        rows = connection.execute(f"{_STANDING} AND name = ?", (project_id, name))
    found = kept.get(connection, rows.fetchall())
    return sorted(found, key=lambda agent: (agent.name, version_key(agent.version)))


def list_grants(connection: Connection, digest: str, project_id: str) -> list[GrantRecord]:
    rows = connection.execute(
        f"SELECT {GRANTS.column_list} FROM grants WHERE project_id = ? AND digest = ? "
        "ORDER BY permission, value",
        (project_id, digest),
    )
    return [GRANTS.decode(row) for row in rows]
