"""Bringing a database file to the version that this Swarm speaks.

The version stands in ``schema_migrations``, one row per migration applied. An upgrade of a database
that holds something first writes a copy beside it, ``<file>.backup-<version>-<time>``. The write
lock is held from before the copy to the end of the first migration, so that the copy lacks nothing.

A folder lock keeps processes that open one new database at once apart: switching a file to WAL
answers "locked" at once, without waiting, while another connection is at it.

Processes that have the file open go on if the migrations allow it
(:mod:`swarm.store.sql.schema`). If not, the upgrade is refused while hosts are at work, and the
others are refused at their next write: the version that a Swarm must know stands in the file's
``user_version``, which each transaction reads.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from swarm.kernel.clock import now_text
from swarm.kernel.durability import sync_ancestors, sync_folder
from swarm.kernel.settings import Settings
from swarm.store.sql.schema import (
    AppliedMigration,
    Migration,
    Refuse,
    SchemaStatus,
    load_migrations,
    oldest_of,
)
from swarm.store.sqlite.connection import connect, create_private
from swarm.store.sqlite.failures import Failures


def statements(migration: Migration) -> Iterator[str]:
    """The script's statements one by one: ``executescript`` would commit in between.

    Each is to be ended by a semicolon at the end of a line.
    """
    statement = ""
    for line in migration.script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if re.sub(r"--.*", "", statement).strip():
        raise ValueError(f"migration {migration.version} ends in the middle of a statement")


MIGRATIONS = load_migrations(Path(__file__).parent / "migrations")


def schema_status(
    path: Path, settings: Settings, migrations: Sequence[Migration] = MIGRATIONS
) -> SchemaStatus:
    """How far the database at ``path`` has come; nothing is changed, and none is made.

    Raises:
        DatabaseError: it cannot be read, or is not Swarm's.
    """
    failures = Failures(path, settings.database_timeout_seconds)
    if not path.exists():
        return SchemaStatus(0, len(migrations))
    try:
        with closing(connect(path, settings, query_only=True)) as connection:
            _refuse_foreign(connection, failures)
            version, oldest = _versions(connection)
            rows = (
                connection.execute(
                    "SELECT version, name, applied_at FROM schema_migrations ORDER BY version"
                ).fetchall()
                if version
                else []
            )
    except sqlite3.Error as error:
        raise failures.explain(error) from None
    applied = tuple(AppliedMigration(*row) for row in rows)
    return SchemaStatus(version, len(migrations), applied, oldest)


def open_migrated(
    path: Path,
    settings: Settings,
    failures: Failures,
    migrations: Sequence[Migration],
    refuse: Refuse,
) -> sqlite3.Connection:
    """Open ``path`` for writing, made or upgraded where needed.

    Raises:
        DatabaseError: it is read-only, too new, or not Swarm's.
        sqlite3.Error: it is locked, damaged, full, ...
        SwarmError: ``refuse`` raised it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise failures.missing_folder(path.parent) from None
    for needed in (path.parent, path):
        if needed.exists() and not os.access(needed, os.W_OK, effective_ids=True):
            raise failures.read_only(needed)
    if path.exists() and (current := _open_current(path, settings, failures, migrations)):
        return current
    with _folder_lock(path.parent, failures), ExitStack() as stack:
        try:
            create_private(path)
        except OSError as error:
            raise failures.read_only(Path(error.filename or path)) from None
        if settings.durability == "full":
            sync_ancestors(path)
        connection = stack.enter_context(closing(connect(path, settings)))
        _refuse_foreign(connection, failures)
        connection.execute("PRAGMA journal_mode = WAL")
        # Rebuilding a table needs this off; it cannot be switched within a transaction.
        connection.execute("PRAGMA foreign_keys = 0")
        _migrate(connection, path, settings, failures, migrations, refuse)
        connection.execute("PRAGMA foreign_keys = 1")
        stack.pop_all()
        return connection


def _open_current(
    path: Path, settings: Settings, failures: Failures, migrations: Sequence[Migration]
) -> sqlite3.Connection | None:
    """A connection if nothing is to be done to the file, without taking any lock."""
    with ExitStack() as stack:
        connection = stack.enter_context(closing(connect(path, settings)))
        version = _version(connection, failures, migrations)
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if version < len(migrations) or mode != "wal":
            return None
        stack.pop_all()
        return connection


def is_too_new(connection: sqlite3.Connection, known: int) -> bool:
    """Whether the file was upgraded beyond what a Swarm that knows ``known`` can work with."""
    (oldest,) = connection.execute("PRAGMA user_version").fetchone()
    return int(oldest) > known


def _versions(connection: sqlite3.Connection) -> tuple[int, int]:
    """The file's version, 0 for a new one, and the one that a Swarm must know to use it."""
    tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'")
    if tables.fetchone() is None:
        return 0, 0
    (version,) = connection.execute("SELECT max(version) FROM schema_migrations").fetchone()
    (oldest,) = connection.execute("PRAGMA user_version").fetchone()
    found = int(version or 0)
    return found, int(oldest) or found


def _version(
    connection: sqlite3.Connection, failures: Failures, migrations: Sequence[Migration]
) -> int:
    """The file's version, 0 for a new one. Raises DatabaseError if it is too new."""
    found, oldest = _versions(connection)
    if oldest > len(migrations):
        raise failures.newer(found, len(migrations), oldest)
    return found


def _refuse_foreign(connection: sqlite3.Connection, failures: Failures) -> None:
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if names and "schema_migrations" not in names:
        raise failures.foreign()


def _migrate(
    connection: sqlite3.Connection,
    path: Path,
    settings: Settings,
    failures: Failures,
    migrations: Sequence[Migration],
    refuse: Refuse,
) -> None:
    found: int | None = None
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = _version(connection, failures, migrations)
            if version >= len(migrations):
                connection.execute("ROLLBACK")
                return
            if found is None and version:
                oldest = oldest_of(migrations[version:])
                if oldest > version:
                    refuse(oldest)
                _back_up(path, version, settings)
            found = version
            _apply(connection, migrations[version])
            connection.execute(f"PRAGMA user_version = {oldest_of(migrations[: version + 1])}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations "
        "(version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TIMESTAMP NOT NULL)"
    )
    for statement in statements(migration):
        connection.execute(statement)
    if broken := connection.execute("PRAGMA foreign_key_check").fetchone():
        raise ValueError(f"migration {migration.version} breaks a reference: {tuple(broken)}")
    connection.execute(
        "INSERT INTO schema_migrations VALUES (?, ?, ?)",
        (migration.version, migration.name, now_text()),
    )


def _back_up(path: Path, version: int, settings: Settings) -> Path:
    """Copy what is committed in ``path`` beside it; the name appears once the copy is whole."""
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    backup = path.with_name(f"{path.name}.backup-{version}-{time}")
    unfinished = backup.with_name(backup.name + ".part")
    create_private(unfinished)
    try:
        with (
            closing(connect(path, settings, query_only=True)) as source,
            closing(sqlite3.connect(unfinished, isolation_level=None)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        unfinished.replace(backup)
        sync_folder(backup.parent)  # the upgrade that follows must not outlive its backup
    except BaseException:
        with suppress(FileNotFoundError):
            unfinished.unlink()
        raise
    return backup


@contextmanager
def _folder_lock(folder: Path, failures: Failures) -> Iterator[None]:
    """Hold the lock of ``folder`` itself; it frees itself when the process ends."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise failures.missing_folder(folder) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
