"""The database of a home: its SQLite file, or the PostgreSQL that its settings name."""

from __future__ import annotations

import asyncio
import threading
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from msgspec import Struct

from swarm.kernel.errors import InvalidError, NotFoundError, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.store.ports import Store
from swarm.store.sql.copying import TableCopy, Tell, copy_records
from swarm.store.sql.schema import SchemaStatus
from swarm.store.sqlite import migration as sqlite_migration
from swarm.store.sqlite.side import sqlite_side
from swarm.store.sqlite.store import open_store

POSTGRES = "swarm.store.postgres"
Kind = Literal["sqlite", "postgresql"]


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
        return await open_store(home.database, settings)
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
        UnavailableError: the database cannot be used, is of a newer version, or PostgreSQL's driver
            is not installed.
    """
    if settings.database_url is None:
        await (await open_store(home.database, settings)).close()
    else:
        url = settings.database_url.get_secret_value()
        await asyncio.to_thread(postgres_module("migration").migrate, url, settings)
    return await database_status(home, settings)


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
        return await asyncio.shield(copying)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.wait([copying])
        raise


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


def database_name(home: Home, settings: Settings) -> str:
    """Where the database is, for people: no password, no parameters."""
    if settings.database_url is None:
        return str(home.database)
    name: str = postgres_module("connection").place(settings.database_url.get_secret_value())
    return name
