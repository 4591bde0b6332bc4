"""The database of a home: its SQLite file, or the PostgreSQL that its settings name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from swarm.kernel.errors import UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.store.ports import Store
from swarm.store.sqlite.store import open_store

POSTGRES = "swarm.store.postgres"


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


def postgres_module(name: str) -> ModuleType:
    """A module of ``swarm.store.postgres``, imported late: its driver is an extra.

    Raises:
        UnavailableError: the driver is not installed.
    """
    try:
        return import_module(f"{POSTGRES}.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "psycopg":
            raise
        raise UnavailableError(
            "PostgreSQL's driver is not installed",
            remedy="install Swarm with the extra `postgres`: pip install 'swarm-runtime[postgres]'",
        ) from None
