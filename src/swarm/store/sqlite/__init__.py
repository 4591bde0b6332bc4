"""The embedded database: SQLite in WAL mode, one writer thread with group commit per process."""

from swarm.store.sqlite.store import SqliteStore, open_store

__all__ = ["SqliteStore", "open_store"]
