"""The home's secrets for runs; cryptography is loaded when the first stored one is read."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from swarm.engine.secrets import SecretReader
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.store.ports import Store
from swarm.vault.identity import lookup_order

VAULT_MODULE = "swarm.bootstrap.vaults"


class StoredSecrets(SecretReader):
    """Opens the vault for the first run that reads a secret which is stored."""

    def __init__(self, store: Store, home: Home, settings: Settings) -> None:
        self._store = store
        self._home = home
        self._settings = settings
        self._vault: SecretReader | None = None

    async def find(self, name: str, workflow: str | None, project_id: str) -> str | None:
        if self._vault is None:
            if not await self._is_stored(name, workflow, project_id):
                return None
            self._vault = load_vault_maker()(self._store, self._home, self._settings)
        return await self._vault.find(name, workflow, project_id)

    async def _is_stored(self, name: str, workflow: str | None, project_id: str) -> bool:
        for one in lookup_order(name, workflow, project_id):
            if await self._store.get_secret(one):
                return True
        return False


def load_vault_maker() -> Callable[[Store, Home, Settings], SecretReader]:
    """``make_vault``, imported now."""
    maker: Callable[[Store, Home, Settings], SecretReader] = import_module(VAULT_MODULE).make_vault
    return maker
