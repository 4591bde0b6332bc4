"""Bringing a PostgreSQL database to the version that this Swarm speaks.

The version stands in ``schema_migrations``, one row per migration applied. All that are missing are
applied in one transaction, and an advisory lock of that transaction keeps processes that start at
once apart. An empty database is made when it is opened; one with an older version is upgraded by
``swarm db migrate`` alone, because workers of the older Swarm may be at work in it.

They may go on if the migrations allow it (:mod:`swarm.store.sql.schema`). If not, the upgrade is
refused while any is registered as alive. For processes that are registered nowhere, each
connection asks for the version when it is opened, and the upgrade ends those that are open: it
holds the table of versions from then on until it has committed, so that they find the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from swarm.kernel.clock import now_text
from swarm.kernel.settings import Settings
from swarm.store.postgres.connection import Raw, connect, place
from swarm.store.postgres.failures import FAILURES, Failures
from swarm.store.sql.schema import (
    AppliedMigration,
    Migration,
    Refuse,
    SchemaStatus,
    load_migrations,
    oldest_of,
    refuse_nothing,
)

_LOCK: Final = 0x5357_4152_4D01
"""The advisory lock of migrations."""
_OURS: Final = ("agents", "workflows", "workflow_runs", "step_executions")


MIGRATIONS = load_migrations(Path(__file__).parent / "migrations")


_END_OTHERS: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND usename = current_user AND starts_with(application_name, 'swarm') "
    "AND pid <> pg_backend_pid()"
)


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
    refuse: Refuse = refuse_nothing,
) -> SchemaStatus:
    """Make the tables of an empty database, and upgrade one of an older version.

    Args:
        url: the database's address.
        settings: limits of time.
        upgrade: whether an older version is brought up to date; else it is refused.
        migrations: the schema's history.
        refuse: asked before an upgrade that older Swarms cannot work with.

    Raises:
        DatabaseError: it cannot be reached, is too new (or older, without ``upgrade``), or is not
            Swarm's; or a table is in use for too long.
    """
    failures = Failures(place(url))
    try:
        with closing(connect(url, settings, writes=False)) as raw:
            if _checked(raw, failures, migrations).is_usable:
                return _status(raw, failures, migrations)
        with closing(connect(url, settings, writes=True)) as raw:
            raw.execute("SELECT pg_advisory_xact_lock($1)", [_LOCK])
            status = _checked(raw, failures, migrations)
            if status.fitness == "older":
                if not upgrade:
                    raise failures.older(status.version, status.known)
                _make_way(raw, settings, status, migrations, refuse)
            for migration in migrations[status.version :]:
                _apply(raw, migration)
            status = _status(raw, failures, migrations)
            raw.commit()
            return status
    except FAILURES as error:
        raise failures.explain(error) from None


def check_version(raw: Raw, failures: Failures, known: int) -> None:
    """Refuse a connection to a database that was upgraded beyond what this Swarm can work with.

    Raises:
        DatabaseError: it was.
        psycopg.Error: the server cannot be asked.
    """
    row = raw.execute(
        "SELECT max(version), max(coalesce(oldest, version)) FROM schema_migrations"
    ).fetchone()
    version, oldest = row or (0, 0)
    if (oldest or 0) > known:
        raise failures.newer(int(version), known, int(oldest))


def _make_way(
    raw: Raw,
    settings: Settings,
    status: SchemaStatus,
    migrations: Sequence[Migration],
    refuse: Refuse,
) -> None:
    """Before an upgrade: see that no process is in the way, or comes to harm."""
    milliseconds = round(settings.database_timeout_seconds * 1000)
    # Whoever wants a table that is being altered waits behind this; not for ever.
    raw.execute("SELECT set_config('lock_timeout', $1, true)", [f"{milliseconds}ms"])
    oldest = oldest_of(migrations[status.version :])
    if oldest > status.version:
        raw.execute("LOCK TABLE schema_migrations IN ACCESS EXCLUSIVE MODE")
        refuse(oldest)
        raw.execute(_END_OTHERS)


def _checked(raw: Raw, failures: Failures, migrations: Sequence[Migration]) -> SchemaStatus:
    status = _status(raw, failures, migrations)
    if status.fitness == "too new":
        raise failures.newer(status.version, status.known, status.oldest)
    return status


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
    # As JSON, because the column is not there before version 3.
    rows = raw.execute(
        "SELECT version, name, applied_at, coalesce((to_jsonb(one)->>'oldest')::bigint, version) "
        "FROM schema_migrations AS one ORDER BY version"
    ).fetchall()
    return SchemaStatus(
        max((int(row[0]) for row in rows), default=0),
        len(migrations),
        tuple(AppliedMigration(int(row[0]), row[1], row[2]) for row in rows),
        max((int(row[3]) for row in rows), default=0),
    )


def _apply(raw: Raw, migration: Migration) -> None:
    raw.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations "
        "(version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL)"
    )
    # Without values, a script of many statements is one message to the server.
    raw.execute(migration.script)
    raw.execute("ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS oldest BIGINT")
    raw.execute(
        "INSERT INTO schema_migrations (version, name, applied_at, oldest) VALUES ($1, $2, $3, $4)",
        [migration.version, migration.name, now_text(), migration.oldest],
    )
