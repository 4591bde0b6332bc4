"""Queries about stored secrets. What is stored is sealed; nothing here can open it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from swarm.kernel.errors import ConflictError
from swarm.store.records import SecretRecord, SecretScope
from swarm.store.sqlite.rows import SECRETS, Value

_SELECT = f"SELECT {SECRETS.column_list} FROM secrets"
_NAME = ("project_id", "scope", "coalesce(workflow_name, workflow_id, '')", "name")
"""What the unique index ``idx_secrets_name`` is over."""
_SAME = f"WHERE {' AND '.join(f'{part} = ?' for part in _NAME)}"
# A replaced value is a new record that keeps the time of the first.
_REPLACE = (
    f"{SECRETS.insert()} ON CONFLICT ({', '.join(_NAME)}) "
    "DO UPDATE SET workflow_id = excluded.workflow_id, updated_at = excluded.updated_at, "
    "encrypted_value = excluded.encrypted_value, wrapped_key = excluded.wrapped_key, "
    "key_id = excluded.key_id"
)

Key = tuple[str, str, str, str]
"""Project, scope, workflow or an empty text, name."""


def key(name: str, scope: SecretScope, workflow_name: str | None, project_id: str) -> Key:
    return (project_id, scope.value, workflow_name or "", name)


def stamped(record: SecretRecord, time: str) -> SecretRecord:
    """The record with the times that it has not."""
    return replace(
        record, created_at=record.created_at or time, updated_at=record.updated_at or time
    )


def put(
    connection: sqlite3.Connection,
    secrets: Sequence[tuple[Key, Sequence[Value]]],
    *,
    may_replace: bool,
) -> None:
    for identity, row in secrets:
        if not may_replace and get(connection, identity) is not None:
            raise ConflictError(
                f"the secret {identity[3]} is there already",
                remedy="import with --replace to give it the new value",
            )
        connection.execute(_REPLACE, row)


def get(connection: sqlite3.Connection, identity: Key) -> SecretRecord | None:
    row = connection.execute(f"{_SELECT} {_SAME}", identity).fetchone()
    return SECRETS.decode(row) if row else None


def list_all(connection: sqlite3.Connection, project_id: str) -> list[SecretRecord]:
    rows = connection.execute(
        f"{_SELECT} WHERE project_id = ? ORDER BY name, coalesce(workflow_name, workflow_id, '')",
        (project_id,),
    )
    return [SECRETS.decode(row) for row in rows]


def delete(connection: sqlite3.Connection, identity: Key) -> bool:
    return connection.execute(f"DELETE FROM secrets {_SAME}", identity).rowcount > 0


def count_by_key(connection: sqlite3.Connection) -> dict[str, int]:
    rows = connection.execute("SELECT ifnull(key_id, ''), count(*) FROM secrets GROUP BY key_id")
    return {str(key_id): int(count) for key_id, count in rows}


def list_not_under(
    connection: sqlite3.Connection, key_id: str, after: str, limit: int
) -> list[SecretRecord]:
    rows = connection.execute(
        f"{_SELECT} WHERE ifnull(key_id, '') <> ? AND id > ? ORDER BY id LIMIT ?",
        (key_id, after, limit),
    )
    return [SECRETS.decode(row) for row in rows]


def rewrap(connection: sqlite3.Connection, changes: Sequence[tuple[bytes, str, str, bytes]]) -> int:
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
