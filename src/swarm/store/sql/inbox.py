"""The inbox of events, and which runs wait for one."""

from __future__ import annotations

from swarm.kernel.json import dumps
from swarm.store.records import EventRecord
from swarm.store.sql.connection import Connection, Row
from swarm.store.sql.rows import Column, Rows, decode_json

EVENTS = Rows(
    "events",
    EventRecord,
    {"payload": Column(lambda value: dumps(value, sort_keys=False), decode_json)},
)
_INSERT = f"{EVENTS.insert()} ON CONFLICT (project_id, id) DO NOTHING"
_SELECT = f"SELECT {EVENTS.column_list} FROM events"
_GET = f"{_SELECT} WHERE project_id = ? AND id = ?"
_WAITS = (
    "SELECT run_id FROM step_executions INDEXED BY idx_steps_awaited "
    "WHERE status = 'waiting' AND wait_kind = 'event' AND project_id = ? "
    "AND wait_name = ? AND"
)
AWAITING = (
    f"SELECT id FROM workflow_runs WHERE id IN ({_WAITS} wait_key IS NULL "
    f"UNION ALL {_WAITS} wait_key = ?) AND created_at < ? ORDER BY id"
)
FIND = (
    f"{_SELECT} WHERE project_id = ? AND name = ? AND received_at > ? "
    "ORDER BY received_at, rowid LIMIT ?"
)
FIND_BY_KEY = (
    f"{_SELECT} WHERE project_id = ? AND name = ? AND key = ? AND received_at > ? "
    "ORDER BY received_at, rowid LIMIT ?"
)
DELETE_OLD = (
    "DELETE FROM events WHERE rowid IN (SELECT rowid FROM events "
    "INDEXED BY idx_events_received WHERE received_at < ? LIMIT ?)"
)


def add(connection: Connection, event: EventRecord, row: Row) -> list[str]:
    """Insert the event unless it is there; return the ids of the runs that wait for it."""
    connection.execute(_INSERT, row)
    stands = EVENTS.decode(connection.execute(_GET, (event.project_id, event.id)).fetchone())
    wait = (stands.project_id, stands.name)
    values = (*wait, *wait, stands.key, stands.received_at)
    return [run_id for (run_id,) in connection.execute(AWAITING, values)]


def find(
    connection: Connection,
    name: str,
    key: str | None,
    after: str,
    limit: int,
    project_id: str,
) -> list[EventRecord]:
    if key is None:
        rows = connection.execute(FIND, (project_id, name, after, limit))
    else:
        rows = connection.execute(FIND_BY_KEY, (project_id, name, key, after, limit))
    return [EVENTS.decode(row) for row in rows]


def purge(connection: Connection, received_before: str, limit: int) -> int:
    return connection.execute(DELETE_OLD, (received_before, limit)).rowcount
