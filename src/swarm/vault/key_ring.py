"""Master keys: where they come from, and the ring of those that are there."""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from swarm.vault.envelope import KEY_BYTES, MasterKey


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The master keys of a home, newest first. All open secrets; the newest seals them."""

    keys: tuple[MasterKey, ...] = ()

    def find(self, key_id: str) -> MasterKey | None:
        return next((key for key in self.keys if key.id == key_id), None)

    def __bool__(self) -> bool:
        return bool(self.keys)

    @property
    def newest(self) -> MasterKey:
        return self.keys[0]


class KeySource(Protocol):
    """One place that keeps master keys. Methods block on files or on the keyring's service."""

    @property
    def place(self) -> str:
        """Where the keys are, for people: a folder, a variable, the OS keyring."""
        ...

    @property
    def can_add(self) -> bool:
        """Whether Swarm itself makes keys there."""
        ...

    def load(self) -> KeyRing:
        """The keys that are there, perhaps none.

        Raises:
            MasterKeyError: a key cannot be read, or is damaged.
            RefusedError: others may read the keys.
        """
        ...

    def add(self) -> None:
        """Make a new key, the newest from now on; leave every other as it is.

        The caller holds the exclusive lock.

        Raises:
            MasterKeyError: it cannot be written.
        """
        ...

    def retire(self, key_ids: frozenset[str]) -> int:
        """Remove keys that no secret needs any more; return how many."""
        ...

    def locked(self, *, exclusive: bool) -> AbstractAsyncContextManager[None]:
        """Keep the set of keys as it is while secrets are sealed (shared), or change it alone."""
        ...


def key_from_text(text: str) -> MasterKey:
    """A key written as 64 hexadecimal digits or as base64. Raises ValueError, without the text."""
    text = text.strip()
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return MasterKey.of(bytes.fromhex(text))
    try:
        material = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"it is not base64 of {KEY_BYTES} bytes") from None
    return MasterKey.of(material)


def key_to_text(key: MasterKey) -> str:
    return base64.b64encode(key.material).decode("ascii")
