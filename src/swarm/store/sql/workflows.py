"""Queries about registered workflows."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.kernel.json import JsonObject
from swarm.store.records import NOT_HERE, WorkflowRecord
from swarm.store.sql.connection import Connection, Value
from swarm.store.sql.kept import Kept
from swarm.store.sql.rows import WORKFLOWS, encode_json
from swarm.store.versions import version_key

_DERIVED = ("steps", "variables", "on_error", "on_success")
"""Columns of the specification that repeat a part of ``definition``, for whoever reads them."""
_SELECT = f"SELECT {WORKFLOWS.column_list} FROM workflows"
_STANDING = "SELECT id, updated_at FROM workflows WHERE project_id = ? AND active = 1"
_INSERT = WORKFLOWS.insert(extra=_DERIVED)
_KEPT = {"id", "name", "version", "digest", "created_at", "enabled", "project_id"}
# What an import claimed about a digest is made good by who registers it.
_CHANGES = ", ".join(
    f"{name} = excluded.{name}" for name in (*WORKFLOWS.columns, *_DERIVED) if name not in _KEPT
)
_PUT = (
    f"{_INSERT} ON CONFLICT (project_id, name, version, digest) DO UPDATE SET {_CHANGES} "
    f"WHERE workflows.path = '{NOT_HERE}'"
)
_ADOPT = f"{_INSERT} ON CONFLICT DO NOTHING"


def encode(workflow: WorkflowRecord) -> list[Value]:
    """The row of ``workflow``, derived columns included."""
    empty: JsonObject = {"steps": [], "variables": {}, "on_error": [], "on_success": []}
    parts = (workflow.definition.get(name, empty[name]) for name in _DERIVED)
    return [*WORKFLOWS.encode(workflow), *map(encode_json, parts)]


def add(connection: Connection, workflow: WorkflowRecord, row: Sequence[Value]) -> WorkflowRecord:
    """Make ``workflow``'s digest the active one of its version; return the record that stands.

    A workflow that was disabled stays so: in its other versions and when it is registered again.
    """
    named = (workflow.project_id, workflow.name)
    connection.execute(
        "UPDATE workflows SET active = 0, updated_at = ? WHERE project_id = ? AND name = ? "
        "AND version = ? AND active = 1 AND digest <> ?",
        (workflow.updated_at, *named, workflow.version, workflow.digest),
    )
    key = (*named, workflow.version, workflow.digest)
    same = "WHERE project_id = ? AND name = ? AND version = ? AND digest = ?"
    disabled = connection.execute(
        "SELECT 1 FROM workflows WHERE project_id = ? AND name = ? AND enabled = 0 LIMIT 1", named
    ).fetchone()
    connection.execute(_PUT, row)
    connection.execute(
        f"UPDATE workflows SET active = 1, updated_at = ?, path = ? {same}",
        (workflow.updated_at, workflow.path, *key),
    )
    if disabled:
        connection.execute(f"UPDATE workflows SET enabled = 0 {same}", key)
    return WORKFLOWS.decode(connection.execute(f"{_SELECT} {same}", key).fetchone())


def adopt(connection: Connection, workflow: WorkflowRecord, row: Sequence[Value]) -> str:
    """Insert ``workflow`` unless it is there, by its id or as the same; the id of what stands."""
    connection.execute(_ADOPT, row)
    (found,) = connection.execute(
        "SELECT coalesce((SELECT id FROM workflows WHERE id = ?), (SELECT id FROM workflows "
        "WHERE project_id = ? AND name = ? AND version = ? AND digest = ?))",
        (workflow.id, workflow.project_id, workflow.name, workflow.version, workflow.digest),
    ).fetchone()
    return str(found)


def get(connection: Connection, workflow_id: str) -> WorkflowRecord | None:
    row = connection.execute(f"{_SELECT} WHERE id = ?", (workflow_id,)).fetchone()
    return WORKFLOWS.decode(row) if row else None


def list_active(
    connection: Connection, kept: Kept[WorkflowRecord], name: str | None, project_id: str
) -> list[WorkflowRecord]:
    """The active workflows, of one name or all, by name and version."""
    if name is None:
        rows = connection.execute(_STANDING, (project_id,))
    else:
        rows = connection.execute(f"{_STANDING} AND name = ?", (project_id, name))
    found = kept.get(connection, rows.fetchall())
    return sorted(found, key=lambda flow: (flow.name, version_key(flow.version)))


def set_enabled(
    connection: Connection, name: str, enabled: bool, project_id: str, time: str
) -> int:
    """Set the flag on all rows, inactive ones too, so that it survives registering them again."""
    connection.execute(
        "UPDATE workflows SET enabled = ?, updated_at = ? WHERE project_id = ? AND name = ?",
        (int(enabled), time, project_id, name),
    )
    (count,) = connection.execute(
        "SELECT count(*) FROM workflows WHERE project_id = ? AND name = ? AND active = 1",
        (project_id, name),
    ).fetchone()
    return int(count)
