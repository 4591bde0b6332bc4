"""Master keys that others keep: the environment, and the operating system's keyring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

from swarm.kernel.errors import MasterKeyError, RefusedError
from swarm.kernel.settings import MASTER_KEY_VARIABLE, Settings
from swarm.vault.envelope import MasterKey
from swarm.vault.key_files import KeyFiles, locked_folder
from swarm.vault.key_ring import (
    KeyRing,
    KeySource,
    key_from_text,
    key_to_text,
)

KEYRING_SERVICE = "swarm"
RETIRED = "retired"
"""What stands in the keyring in place of a key that no secret needs any more."""


def key_source(settings: Settings, folder: Path, environment: Mapping[str, str]) -> KeySource:
    """The source that the settings choose for the home whose secrets' folder this is."""
    chosen = settings.master_key_source
    if chosen == "environment" or (chosen == "auto" and environment.get(MASTER_KEY_VARIABLE)):
        return EnvironmentKeys(environment, folder)
    if chosen == "keyring":
        return OsKeyring(folder, load_keyring)
    return KeyFiles(folder)


class EnvironmentKeys:
    """``SWARM_MASTER_KEY``: one key or several, newest first, with commas between them."""

    place = MASTER_KEY_VARIABLE
    can_add = False

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder

    def load(self) -> KeyRing:
        texts = self._environment.get(MASTER_KEY_VARIABLE, "").split(",")
        try:
            return KeyRing(tuple(key_from_text(text) for text in texts if text.strip()))
        except ValueError as error:
            raise MasterKeyError(
                f"the master key cannot be used: {error}",
                where=MASTER_KEY_VARIABLE,
                remedy="give 32 random bytes as base64 (`openssl rand -base64 32` makes a key), "
                "several with commas between them, the newest first",
            ) from None

    def add(self) -> None:
        raise RefusedError(
            "Swarm does not make master keys for the environment",
            where=MASTER_KEY_VARIABLE,
            remedy="put a new key (`openssl rand -base64 32`) and a comma in front of its value, "
            "for every process of this home, and then rotate",
        )

    def retire(self, key_ids: frozenset[str]) -> int:
        return 0

    def locked(self, *, exclusive: bool) -> AbstractAsyncContextManager[None]:
        return locked_folder(self._folder, exclusive=exclusive)


class OsKeyring:
    """Items ``<folder>#1``, ``<folder>#2``, ... of the service ``swarm``; the last is the newest.

    A keyring cannot be asked for its items, so they are counted up to the first that is missing; a
    retired key leaves a word in its place. The library ``keyring`` is loaded only when this source
    is chosen.
    """

    place = "the OS keyring"
    can_add = True

    def __init__(self, folder: Path, load: Callable[[], Any]) -> None:
        self._folder = folder
        self._library = load()

    def load(self) -> KeyRing:
        return KeyRing(tuple(reversed([key for key in self._items() if key is not None])))

    def add(self) -> None:
        self._write(len(self._items()) + 1, key_to_text(MasterKey.generate()))

    def retire(self, key_ids: frozenset[str]) -> int:
        numbers = [
            number
            for number, key in enumerate(self._items(), start=1)
            if key is not None and key.id in key_ids
        ]
        for number in numbers:
            self._write(number, RETIRED)
        return len(numbers)

    def locked(self, *, exclusive: bool) -> AbstractAsyncContextManager[None]:
        return locked_folder(self._folder, exclusive=exclusive)

    def _items(self) -> list[MasterKey | None]:
        """The keys by ascending number; None for one that was retired."""
        found: list[MasterKey | None] = []
        try:
            while text := self._library.get_password(KEYRING_SERVICE, self._item(len(found) + 1)):
                found.append(None if text == RETIRED else key_from_text(text))
        except self._library.errors.KeyringError as error:
            raise self._failed(error) from None
        except ValueError as error:
            raise MasterKeyError(
                f"item {self._item(len(found) + 1)} of the service {KEYRING_SERVICE} holds no "
                f"master key: {error}",
                where=self.place,
                remedy="put the key back",
            ) from None
        return found

    def _write(self, number: int, text: str) -> None:
        try:
            self._library.set_password(KEYRING_SERVICE, self._item(number), text)
        except self._library.errors.KeyringError as error:
            raise self._failed(error) from None

    def _item(self, number: int) -> str:
        return f"{self._folder}#{number}"

    def _failed(self, error: Exception) -> MasterKeyError:
        return MasterKeyError(
            f"the keyring does not answer ({type(error).__name__})",
            where=self.place,
            remedy="unlock it, or choose another master_key_source; no secret is lost",
        )


def load_keyring() -> Any:
    """The library ``keyring``. Raises MasterKeyError if it is not installed."""
    try:
        return import_module("keyring")
    except ImportError:
        raise MasterKeyError(
            "the library keyring is not installed",
            where="master_key_source",
            remedy="install swarm-runtime[keyring], or choose `file` or `environment`",
        ) from None
