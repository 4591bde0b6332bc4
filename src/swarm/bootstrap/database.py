"""The database of a home: its SQLite file, or the PostgreSQL that its settings name."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from msgspec import Struct

from swarm.dispatch.local_hosts import LocalHosts
from swarm.dispatch.ports import HostInfo
from swarm.kernel.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.store.ports import Store
from swarm.store.sql.copying import TableCopy, Tell, copy_records
from swarm.store.sql.schema import Refuse, SchemaStatus
from swarm.store.sqlite import migration as sqlite_migration
from swarm.store.sqlite.side import sqlite_side
from swarm.store.sqlite.store import open_store

POSTGRES = "swarm.store.postgres"
Kind = Literal["sqlite", "postgresql"]
NAMED_HOSTS = 5
"""Processes in the way of an upgrade that a message names."""


class DatabaseStatus(Struct, frozen=True):
    """Which database a home has."""

    kind: Kind
    place: str
    """The file's path, or the server's address without a password."""
    schema: SchemaStatus


async def open_database(home: Home, settings: Settings, **options: Any) -> Store:
    """Open the database of ``home``, made if it is not there.

    Args:
        home: where the SQLite file is.
        settings: ``database_url`` chooses PostgreSQL.
        options: for PostgreSQL alone; see :func:`swarm.store.postgres.store.open_store`.

    Raises:
        UnavailableError: the database cannot be used, or PostgreSQL's driver is not installed.
    """
    if settings.database_url is None:
        return await open_store(home.database, settings, refuse=_refuse_at_work(home))
    url = settings.database_url.get_secret_value()
    store: Store = await postgres_module("store").open_store(url, settings, **options)
    return store


async def database_status(home: Home, settings: Settings) -> DatabaseStatus:
    """Which database it is, and how far its schema has come; nothing is changed.

    Raises:
        UnavailableError: the database cannot be read, or PostgreSQL's driver is not installed.
    """
    if settings.database_url is None:
        schema = await asyncio.to_thread(sqlite_migration.schema_status, home.database, settings)
        return DatabaseStatus("sqlite", str(home.database), schema)
    url = settings.database_url.get_secret_value()
    schema = await asyncio.to_thread(postgres_module("migration").schema_status, url, settings)
    return DatabaseStatus("postgresql", postgres_module("connection").place(url), schema)


async def migrate_database(home: Home, settings: Settings) -> DatabaseStatus:
    """Make the database's tables, or bring them to the version that this Swarm speaks.

    Raises:
        ConflictError: processes of an older Swarm are at work that the upgrade would harm.
        UnavailableError: the database cannot be used, is too new, or PostgreSQL's driver is not
            installed.
    """
    if settings.database_url is None:
        await (await open_database(home, settings)).close()
    else:
        url = settings.database_url.get_secret_value()
        fleet = extra_module("swarm.dispatch.fleet.upgrade")

        def refuse(oldest: int) -> None:
            refuse_at_work(fleet.living_hosts(url), oldest)

        migrate = postgres_module("migration").migrate
        await asyncio.to_thread(migrate, url, settings, refuse=refuse)
        await fleet.upgrade_fleet(url)
    return await database_status(home, settings)


def refuse_at_work(hosts: Sequence[HostInfo], oldest: int) -> None:
    """Refuse an upgrade that these hosts, of an older Swarm, cannot work with.

    Raises:
        ConflictError: there are some.
    """
    if not hosts:
        return
    which = [f"{one.role} {one.pid}{f' on {one.machine}' if one.machine else ''}" for one in hosts]
    named = ", ".join(which[:NAMED_HOSTS]) + (", ..." if len(which) > NAMED_HOSTS else "")
    raise ConflictError(
        f"the upgrade needs Swarms that know version {oldest} of the database, and processes of an "
        f"older one are at work: {named}",
        remedy="stop them first (SIGTERM lets a worker's runs end, or be taken up again later), "
        "then run `swarm db migrate`, and start the newer ones",
    )


def _refuse_at_work(home: Home) -> Refuse:
    def refuse(oldest: int) -> None:
        refuse_at_work(LocalHosts(home.hosts).list(), oldest)

    return refuse


async def copy_database(
    home: Home, settings: Settings, to: Kind, tell: Tell
) -> tuple[str, list[TableCopy]]:
    """Copy all records between the home's SQLite file and the PostgreSQL of its settings.

    Nothing else may write either of them meanwhile, and the target must hold no records. What has
    arrived is compared with what was sent before it is committed.

    Args:
        home: where the SQLite file is.
        settings: ``database_url`` is the PostgreSQL.
        to: which of the two is the target.
        tell: called from another thread with how far the copy has come.

    Returns:
        Where the copy is, and what was copied of each table.

    Raises:
        InvalidError: ``database_url`` is not set.
        ConflictError: the target is not empty.
        UnavailableError: one of them cannot be used.
    """
    if settings.database_url is None:
        raise InvalidError(
            "it is not said which PostgreSQL database is meant",
            remedy="set SWARM_DATABASE_URL=postgresql://user:password@host/name",
        )
    if to == "postgresql" and not home.database.exists():
        raise NotFoundError("this home has no SQLite database to copy", where=str(home.database))
    url = settings.database_url.get_secret_value()
    postgres_side = postgres_module("side").postgres_side
    stopped = threading.Event()

    def checked_tell(table: str, done: int, total: int) -> None:
        if stopped.is_set():
            raise InvalidError("the copy was stopped")
        tell(table, done, total)

    def copy() -> tuple[str, list[TableCopy]]:
        with sqlite_side(home.database, settings) as file, postgres_side(url, settings) as server:
            source, target = (server, file) if to == "sqlite" else (file, server)
            return target.place, copy_records(source, target, checked_tell)

    copying = asyncio.ensure_future(asyncio.to_thread(copy))
    try:
        copied = await asyncio.shield(copying)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.wait([copying])
        raise
    if to == "postgresql":
        await extra_module("swarm.dispatch.fleet.upgrade").upgrade_fleet(url)
    return copied


def postgres_module(name: str) -> ModuleType:
    """A module of ``swarm.store.postgres``; see :func:`extra_module`."""
    return extra_module(f"{POSTGRES}.{name}")


def extra_module(name: str) -> ModuleType:
    """A module that needs PostgreSQL's driver, imported late: that is an extra.

    Raises:
        UnavailableError: the driver is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "psycopg":
            raise
        raise UnavailableError(
            "PostgreSQL's driver is not installed",
            remedy="install Swarm with the extra `postgres`: pip install 'swarm-runtime[postgres]'",
        ) from None
