"""Results of steps that may be used again."""

from __future__ import annotations

from swarm.store.records import CachedResult
from swarm.store.sql.connection import Connection, Row
from swarm.store.sql.rows import JSON, Rows, Upsert

CACHED = Rows("step_cache", CachedResult, {"outputs": JSON})
_RESULTS = Upsert(CACHED, key=("key",))
_SELECT = f"SELECT {CACHED.column_list} FROM step_cache WHERE key = ? AND expires_at > ?"
DELETE_EXPIRED = (
    "DELETE FROM step_cache WHERE key IN (SELECT key FROM step_cache "
    "INDEXED BY idx_step_cache_expires WHERE expires_at <= ? LIMIT ?)"
)


def put(connection: Connection, results: list[Row]) -> None:
    _RESULTS.run(connection, results)


def get(connection: Connection, key: str, moment: str) -> CachedResult | None:
    row = connection.execute(_SELECT, (key, moment)).fetchone()
    return CACHED.decode(row) if row else None


def purge(connection: Connection, expired_at: str, limit: int) -> int:
    return connection.execute(DELETE_EXPIRED, (expired_at, limit)).rowcount
