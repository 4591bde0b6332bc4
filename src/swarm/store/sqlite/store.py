"""Opening the store over one SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from swarm.kernel.settings import Settings
from swarm.store.sql.schema import Migration, Refuse, refuse_nothing
from swarm.store.sql.store import SqlStore
from swarm.store.sqlite.backup import DatabaseBackups
from swarm.store.sqlite.batches import Session
from swarm.store.sqlite.failures import Failures
from swarm.store.sqlite.log_space import LogSpace
from swarm.store.sqlite.migration import MIGRATIONS, open_migrated
from swarm.store.sqlite.readers import Readers
from swarm.store.sqlite.turns import Turns
from swarm.store.sqlite.writer import Writer


class SqliteStore(SqlStore):
    """The store over one SQLite file."""


async def open_store(
    path: Path,
    settings: Settings,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
    refuse: Refuse = refuse_nothing,
) -> SqliteStore:
    """Open the database at ``path``, made or upgraded where needed (an upgrade backs up first).

    The store belongs to the running event loop.

    Args:
        path: the file.
        settings: limits of time, and how durable commits are.
        migrations: the schema's history.
        refuse: asked before an upgrade that older Swarms cannot work with.

    Raises:
        DatabaseError: locked, read-only, full, damaged, too new, or not Swarm's.
        SwarmError: ``refuse`` raised it.
    """
    failures = Failures(path, settings.database_timeout_seconds)

    def open_session() -> Session:
        with ExitStack() as stack:
            connection = open_migrated(path, settings, failures, migrations, refuse)
            stack.callback(connection.close)
            turns = Turns(path, settings.database_timeout_seconds)
            stack.callback(turns.close)
            log_space = LogSpace(path) if settings.durability == "full" else None
            connection.execute("PRAGMA busy_timeout = 0")
            stack.pop_all()
            return Session(connection, turns, failures, log_space, len(migrations))

    writer = Writer(open_session, failures)
    await writer.start()
    readers = Readers(path, settings, failures)
    return SqliteStore(writer, readers, DatabaseBackups(path, settings, failures, readers))
