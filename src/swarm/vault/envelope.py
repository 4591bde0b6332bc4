"""Envelope encryption of one secret: pure functions over bytes, no storage and no files.

Each value is encrypted with a data key of its own, made for that value and never used again; the
data key is encrypted ("wrapped") with the master key. Both use AES-256-GCM (NIST SP 800-38D) with
random 96-bit nonces, stored as ``format byte, nonce, ciphertext and tag``.

What belongs together is bound together by associated data: the owner, scope, workflow and name
of the secret, and for the data key the master key's id too. A ciphertext that is moved to another
name, project or workflow, or changed in any bit, fails its check.

A master key's id is a digest of the key, so a key can never pass under another key's id. (GCM by
itself does not commit to its key.) A master key wraps one data key for each secret that is set or
rewrapped: far from the 2**32 random nonces that section 8.3 allows.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from swarm.store.records import SecretIdentity

FORMAT = 1
KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
ID_DIGITS = 32
"""Hexadecimal digits of a master key's id: 128 bits of its digest."""


class BrokenSeal(Exception):
    """A ciphertext that was not made with this key for this secret, or was changed."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A key that wraps data keys; its id says which without telling the key."""

    id: str
    material: bytes = field(repr=False)

    @classmethod
    def of(cls, material: bytes) -> MasterKey:
        """The key of these bytes. Raises ValueError unless there are 32 of them."""
        if len(material) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes, not {len(material)}")
        digest = hashlib.sha256(b"swarm master key id\0" + material).hexdigest()
        return cls(f"mk_{digest[:ID_DIGITS]}", material)

    @classmethod
    def generate(cls) -> MasterKey:
        return cls.of(os.urandom(KEY_BYTES))


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is stored of a secret's value."""

    encrypted_value: bytes
    wrapped_key: bytes
    key_id: str


def seal(key: MasterKey, identity: SecretIdentity, value: bytes) -> Sealed:
    """Encrypt ``value`` for this secret alone, under a new data key."""
    data_key = os.urandom(KEY_BYTES)
    return Sealed(
        encrypted_value=_encrypt(data_key, value, _associated("value", identity)),
        wrapped_key=_wrap(key, identity, data_key),
        key_id=key.id,
    )


def unseal(key: MasterKey, identity: SecretIdentity, sealed: Sealed) -> bytes:
    """The value. Raises BrokenSeal if anything is not as it was sealed."""
    data_key = _unwrap(key, identity, sealed)
    return _decrypt(data_key, sealed.encrypted_value, _associated("value", identity))


def rewrap(old: MasterKey, new: MasterKey, identity: SecretIdentity, sealed: Sealed) -> Sealed:
    """The same value under another master key; only the data key is encrypted anew.

    Raises:
        BrokenSeal: the data key was not wrapped with ``old`` for this secret.
    """
    data_key = _unwrap(old, identity, sealed)
    return Sealed(sealed.encrypted_value, _wrap(new, identity, data_key), new.id)


def _wrap(key: MasterKey, identity: SecretIdentity, data_key: bytes) -> bytes:
    return _encrypt(key.material, data_key, _associated("key", identity, key.id))


def _unwrap(key: MasterKey, identity: SecretIdentity, sealed: Sealed) -> bytes:
    if sealed.key_id != key.id:
        raise BrokenSeal
    data_key = _decrypt(key.material, sealed.wrapped_key, _associated("key", identity, key.id))
    if len(data_key) != KEY_BYTES:
        raise BrokenSeal
    return data_key


def _associated(purpose: str, identity: SecretIdentity, key_id: str = "") -> bytes:
    """The bytes that a ciphertext is bound to; JSON keeps the parts apart whatever they hold."""
    parts = (
        "swarm secret",
        FORMAT,
        purpose,
        identity.owner,
        identity.scope,
        identity.workflow,
        identity.name,
        key_id,
    )
    return json.dumps(parts, separators=(",", ":")).encode("ascii")


def _encrypt(key: bytes, plain: bytes, associated: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return bytes([FORMAT]) + nonce + AESGCM(key).encrypt(nonce, plain, associated)


def _decrypt(key: bytes, blob: bytes, associated: bytes) -> bytes:
    if len(blob) < 1 + NONCE_BYTES + TAG_BYTES or blob[0] != FORMAT:
        raise BrokenSeal
    nonce, rest = blob[1 : 1 + NONCE_BYTES], blob[1 + NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, rest, associated)
    except InvalidTag:
        raise BrokenSeal from None
