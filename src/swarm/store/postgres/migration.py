"""Bringing a PostgreSQL database to the version that this Swarm speaks.

The version stands in ``schema_migrations``, one row per migration applied. All that are missing are
applied in one transaction, and an advisory lock of that transaction keeps processes that start at
once apart. An empty database is made when it is opened; one with an older version is upgraded by
``swarm db migrate`` alone, because workers of the older Swarm may be at work in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm.kernel.clock import now_text
from swarm.kernel.settings import Settings
from swarm.store.postgres.connection import Raw, connect, place
from swarm.store.postgres.failures import FAILURES, Failures
from swarm.store.sql.schema import AppliedMigration, SchemaStatus

_LOCK: Final = 0x5357_4152_4D01
"""The advisory lock of migrations."""
_OURS: Final = ("agents", "workflows", "workflow_runs", "step_executions")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema's history."""

    version: int
    name: str
    script: str


def load_migrations(folder: Path) -> tuple[Migration, ...]:
    """The migrations in ``folder`` in order. Raises ValueError if a number is missing or double."""
    migrations = []
    for number, path in enumerate(sorted(folder.glob("*.sql")), start=1):
        version, _, name = path.stem.partition("_")
        if int(version) != number:
            raise ValueError(f"{path.name} should be number {number:04}")
        migrations.append(Migration(number, name, path.read_text("utf-8")))
    return tuple(migrations)


MIGRATIONS = load_migrations(Path(__file__).parent / "migrations")


def schema_status(
    url: str, settings: Settings, migrations: Sequence[Migration] = MIGRATIONS
) -> SchemaStatus:
    """How far the database at ``url`` has come; nothing is changed.

    Raises:
        DatabaseError: it cannot be reached, or is not Swarm's.
    """
    failures = Failures(place(url))
    try:
        with closing(connect(url, settings, writes=False)) as raw:
            return _status(raw, failures, migrations)
    except FAILURES as error:
        raise failures.explain(error) from None


def migrate(
    url: str,
    settings: Settings,
    *,
    upgrade: bool = True,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> SchemaStatus:
    """Make the tables of an empty database, and upgrade one of an older version.

    Args:
        url: the database's address.
        settings: limits of time.
        upgrade: whether an older version is brought up to date; else it is refused.
        migrations: the schema's history.

    Raises:
        DatabaseError: it cannot be reached, is of a newer version (or an older one, without
            ``upgrade``), or is not Swarm's.
    """
    failures = Failures(place(url))
    try:
        with closing(connect(url, settings, writes=False)) as raw:
            status = _status(raw, failures, migrations)
            if status.is_current:
                return status
        with closing(connect(url, settings, writes=True)) as raw:
            raw.execute("SELECT pg_advisory_xact_lock($1)", [_LOCK])
            status = _status(raw, failures, migrations)
            if status.version and not status.is_current and not upgrade:
                raise failures.older(status.version, status.known)
            while not status.is_current:
                _apply(raw, migrations[status.version])
                status = _status(raw, failures, migrations)
            raw.commit()
            return status
    except FAILURES as error:
        raise failures.explain(error) from None


def _status(raw: Raw, failures: Failures, migrations: Sequence[Migration]) -> SchemaStatus:
    (ours, recorded) = raw.execute(
        "SELECT count(*) FILTER (WHERE table_name = ANY($1) AND column_name = 'project_id'), "
        "count(*) FILTER (WHERE table_name = 'schema_migrations' AND column_name = 'applied_at') "
        "FROM information_schema.columns WHERE table_schema = current_schema()",
        [list(_OURS)],
    ).fetchone() or (0, 0)
    if not recorded:
        if ours:
            raise failures.foreign()
        return SchemaStatus(0, len(migrations))
    rows = raw.execute(
        "SELECT version, name, applied_at FROM schema_migrations ORDER BY version"
    ).fetchall()
    version = max((int(row[0]) for row in rows), default=0)
    if version > len(migrations):
        raise failures.newer(version, len(migrations))
    return SchemaStatus(
        version, len(migrations), tuple(AppliedMigration(int(row[0]), *row[1:]) for row in rows)
    )


def _apply(raw: Raw, migration: Migration) -> None:
    raw.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations "
        "(version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL)"
    )
    # Without values, a script of many statements is one message to the server.
    raw.execute(migration.script)
    raw.execute(
        "INSERT INTO schema_migrations VALUES ($1, $2, $3)",
        [migration.version, migration.name, now_text()],
    )
