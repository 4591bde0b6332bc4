"""The vault of one home. Importing this imports cryptography."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from swarm.bootstrap.records import Records, open_records
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.store.ports import Store
from swarm.vault.key_sources import key_source
from swarm.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class OpenVault:
    """A home opened to work with its secrets."""

    records: Records
    vault: Vault


def make_vault(store: Store, home: Home, settings: Settings) -> Vault:
    """The vault over an open store.

    Raises:
        MasterKeyError: the chosen source of the master key is not installed.
    """
    keys = key_source(settings, home.secrets, os.environ)
    return Vault(
        store,
        keys,
        max_bytes=settings.max_secret_bytes,
        rotation_batch=settings.secret_rotation_batch,
    )


@asynccontextmanager
async def open_vault(settings: Settings) -> AsyncIterator[OpenVault]:
    """Open the home of ``settings`` and its vault; no key is read before it is needed.

    Raises:
        UnavailableError: the home, its database or the source of the master key cannot be used.
    """
    async with open_records(settings) as records:
        yield OpenVault(records, make_vault(records.store, records.home, settings))
