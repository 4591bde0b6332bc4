"""Queries about stored secrets. What is stored is sealed; nothing here can open it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from swarm.kernel.errors import ConflictError
from swarm.store.records import SecretIdentity, SecretRecord
from swarm.store.sql.connection import Connection, Value
from swarm.store.sql.rows import SECRETS

_SELECT = f"SELECT {SECRETS.column_list} FROM secrets"
_IDENTITY = (
    "scope",
    "coalesce(organization_id, project_id)",
    "coalesce(workflow_name, workflow_id, '')",
    "name",
)
"""What the unique index ``idx_secrets_identity`` is over."""
_SAME = f"WHERE {' AND '.join(f'{part} = ?' for part in _IDENTITY)}"
# A replaced value is a new record that keeps the time of the first.
_REPLACE = (
    f"{SECRETS.insert()} ON CONFLICT ({', '.join(_IDENTITY)}) "
    "DO UPDATE SET workflow_id = excluded.workflow_id, updated_at = excluded.updated_at, "
    "encrypted_value = excluded.encrypted_value, wrapped_key = excluded.wrapped_key, "
    "key_id = excluded.key_id"
)


def _parameters(identity: SecretIdentity) -> tuple[str, str, str, str]:
    """The values of ``_IDENTITY``."""
    return (identity.scope.value, identity.owner, identity.workflow or "", identity.name)


def stamped(record: SecretRecord, time: str) -> SecretRecord:
    """The record with the times that it has not."""
    return replace(
        record, created_at=record.created_at or time, updated_at=record.updated_at or time
    )


def put(
    connection: Connection,
    secrets: Sequence[tuple[SecretIdentity, Sequence[Value]]],
    *,
    may_replace: bool,
) -> None:
    for identity, row in secrets:
        if not may_replace and get(connection, identity) is not None:
            raise ConflictError(
                f"the secret {identity} is there already",
                remedy="import with --replace to give it the new value",
            )
        connection.execute(_REPLACE, row)


def get(connection: Connection, identity: SecretIdentity) -> SecretRecord | None:
    row = connection.execute(f"{_SELECT} {_SAME}", _parameters(identity)).fetchone()
    return SECRETS.decode(row) if row else None


def list_all(connection: Connection, project_id: str, organization_id: str) -> list[SecretRecord]:
    rows = connection.execute(
        f"{_SELECT} WHERE CASE WHEN organization_id IS NULL THEN project_id = ? "
        "ELSE organization_id = ? END "
        "ORDER BY name, organization_id IS NULL, coalesce(workflow_name, '')",
        (project_id, organization_id),
    )
    return [SECRETS.decode(row) for row in rows]


def delete(connection: Connection, identity: SecretIdentity) -> bool:
    return connection.execute(f"DELETE FROM secrets {_SAME}", _parameters(identity)).rowcount > 0


def count_by_key(connection: Connection) -> dict[str, int]:
    rows = connection.execute(
        "SELECT key_id, count(*) FROM secrets WHERE key_id <> '' GROUP BY key_id"
    )
    return {str(key_id): int(count) for key_id, count in rows}


def list_not_under(
    connection: Connection, key_id: str, after: str, limit: int
) -> list[SecretRecord]:
    rows = connection.execute(
        f"{_SELECT} WHERE key_id NOT IN (?, '') AND id > ? ORDER BY id LIMIT ?",
        (key_id, after, limit),
    )
    return [SECRETS.decode(row) for row in rows]


def rewrap(connection: Connection, changes: Sequence[tuple[bytes, str, str, bytes]]) -> int:
    """Rows of new wrapped key, its key's id, record id, old wrapped key; counts what changed.

    A secret that was set anew meanwhile has another wrapped key, and is left alone.
    """
    return sum(
        connection.execute(
            "UPDATE secrets SET wrapped_key = ?, key_id = ? WHERE id = ? AND wrapped_key = ?",
            change,
        ).rowcount
        for change in changes
    )
