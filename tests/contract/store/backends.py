"""Opening a store by its database's address: an URL of PostgreSQL, or an SQLite file."""

from __future__ import annotations

from pathlib import Path

from swarm.kernel.settings import Settings
from swarm.store import postgres, sqlite
from swarm.store.ports import Store


async def open_at(address: str, settings: Settings) -> Store:
    if address.startswith("postgresql:"):
        return await postgres.open_store(address, settings)
    return await sqlite.open_store(Path(address), settings)
