"""The vault of a home: sets, opens and rewraps secrets.

Its promises: a new master key is made only while no secret exists or by a rotation; nothing is
sealed under a key that does not fit the secrets that are there; whatever fails changes nothing.
Every rewrapped batch is one commit, so a rotation that is cut short is carried on by the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from swarm.kernel.errors import DatabaseError, InputError, MasterKeyError, NotFoundError
from swarm.kernel.ids import new_id
from swarm.store.ports import SecretStore
from swarm.store.records import SecretIdentity, SecretRecord, SecretScope
from swarm.vault.envelope import BrokenSeal, Sealed, rewrap, seal, unseal
from swarm.vault.identity import check_name, lookup_order
from swarm.vault.key_ring import KeyRing, KeySource
from swarm.vault.masking import HELD


class NewSecret(Struct, frozen=True):
    """A value to be stored."""

    identity: SecretIdentity
    value: str
    workflow_id: str | None = None
    """The newest version of the identity's workflow."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did."""

    key_id: str
    """The newest master key, which now holds every secret."""
    made_key: bool
    """False when it carried on a rotation that had been cut short, or keys are kept elsewhere."""
    rewrapped: int
    retired: int


class Vault:
    """The secrets of one home."""

    def __init__(
        self, store: SecretStore, keys: KeySource, *, max_bytes: int, rotation_batch: int
    ) -> None:
        """
        Args:
            store: where the sealed values are.
            keys: where the master keys are.
            max_bytes: bounds one value, as UTF-8.
            rotation_batch: how many secrets a rotation rewraps in one commit.
        """
        self._store = store
        self._keys = keys
        self._max_bytes = max_bytes
        self._rotation_batch = rotation_batch
        self._ring = KeyRing()

    async def put(self, secrets: Sequence[NewSecret], *, may_replace: bool = True) -> None:
        """Store all of ``secrets``, or none. The first ever makes the master key.

        Raises:
            InvalidError: a name or value that cannot be.
            ConflictError: one is there already and may not be replaced.
            MasterKeyError, RefusedError: the master key is missing, wrong or not private.
        """
        for secret in secrets:
            HELD.add(secret.value)
            check_name(secret.identity.name)
            self._check_value(secret)
        async with self._keys.locked(exclusive=False):
            ring = await self._load()
            if ring:
                await self._check_fit(ring)
                await self._put(ring, secrets, may_replace)
                return
        async with self._keys.locked(exclusive=True):
            await self._put(await self._ring_to_seal(), secrets, may_replace)

    async def get(self, identity: SecretIdentity) -> str:
        """The value.

        Raises:
            NotFoundError: there is no such secret; offers the nearest names.
            MasterKeyError, RefusedError: its master key is missing or not private.
            DatabaseError: what is stored was changed or damaged.
        """
        value = await self._read(identity)
        if value is None:
            raise await self.unknown(identity)
        return value

    async def find(self, name: str, workflow: str | None, project_id: str) -> str | None:
        """The value for a run of ``workflow``: its own, else the project's, else the
        organization's, else None.

        Raises:
            as :meth:`get`, but never NotFoundError.
        """
        for identity in lookup_order(name, workflow, project_id):
            value = await self._read(identity)
            if value is not None:
                return value
        return None

    async def open_all(self, records: Iterable[SecretRecord]) -> list[tuple[SecretRecord, str]]:
        """Records with their values. Raises as :meth:`get` does."""
        return [(record, await self._open(record)) for record in records]

    async def unknown(self, identity: SecretIdentity) -> NotFoundError:
        """The error that says that there is no such secret."""
        records = await self._store.list_secrets(identity.project_id)
        known = [
            one.name for one in records if replace(one.identity, name=identity.name) == identity
        ]
        elsewhere = [one for one in records if one.name == identity.name]
        remedy = "`swarm secret list` shows those that are there"
        if elsewhere:
            others = " and ".join(_scope_text(one) for one in elsewhere)
            remedy = f"there is one {others}; {remedy}"
        return NotFoundError(
            f"there is no secret {identity}", name=identity.name, known=known, remedy=remedy
        )

    async def rotate(
        self, *, retire: bool = False, on_batch: Callable[[int], None] = lambda count: None
    ) -> Rotation:
        """Make a new master key and rewrap every secret with it; runs go on meanwhile.

        A rotation that was cut short is carried on, and makes no further key.

        Args:
            retire: remove the older keys once no secret needs them.
            on_batch: told how many have been rewrapped, after each commit.

        Raises:
            MasterKeyError: a key that a secret needs is missing; nothing was changed.
            RefusedError: the keys are the environment's, and it has no newer one.
            DatabaseError: secrets that were changed or damaged; all others were rewrapped.
        """
        async with self._keys.locked(exclusive=True):
            ring = await self._ring_to_seal()
            held = await self._store.count_secrets_by_key()
            for key_id in held:
                if ring.find(key_id) is None:
                    raise self._missing(key_id, ring)
            made = not any(key_id != ring.newest.id for key_id in held)
            if made:
                await asyncio.to_thread(self._keys.add)
                await self._load()
        rewrapped = await self._rewrap_all(on_batch)
        return Rotation(
            key_id=self._ring.newest.id,
            made_key=made,
            rewrapped=rewrapped,
            retired=await self._retire() if retire else 0,
        )

    async def _rewrap_all(self, on_batch: Callable[[int], None]) -> int:
        rewrapped, after = 0, ""
        broken: list[SecretRecord] = []
        while True:
            page = await self._store.secrets_not_under(
                self._ring.newest.id, after, self._rotation_batch
            )
            if not page:
                break
            after = page[-1].id
            if any(self._ring.find(record.key_id) is None for record in page):
                await self._load()  # another rotation has made a newer key meanwhile
            changes = []
            for record in page:
                try:
                    changes.append((record, self._rewrapped(record)))
                except BrokenSeal:
                    broken.append(record)
            rewrapped += await self._store.rewrap_secrets(changes)
            on_batch(rewrapped)
        if broken:
            raise _damaged(broken)
        return rewrapped

    def _rewrapped(self, record: SecretRecord) -> SecretRecord:
        old = self._ring.find(record.key_id)
        if old is None:
            raise self._missing(record.key_id, self._ring)
        sealed = rewrap(old, self._ring.newest, record.identity, _sealed(record))
        return replace(record, wrapped_key=sealed.wrapped_key, key_id=sealed.key_id)

    async def _retire(self) -> int:
        async with self._keys.locked(exclusive=True):
            ring = await self._load()
            held = await self._store.count_secrets_by_key()
            unused = frozenset(key.id for key in ring.keys[1:] if key.id not in held)
            return await asyncio.to_thread(self._keys.retire, unused) if unused else 0

    async def _put(self, ring: KeyRing, secrets: Sequence[NewSecret], may_replace: bool) -> None:
        records = [_sealed_record(ring, secret) for secret in secrets]
        await self._store.put_secrets(records, may_replace=may_replace)

    async def _ring_to_seal(self) -> KeyRing:
        """The ring, with a first key made if no secret is there; under the exclusive lock."""
        ring = await self._load()
        if ring:
            await self._check_fit(ring)
            return ring
        held = await self._store.count_secrets_by_key()
        if held:
            raise self._missing(next(iter(held)), ring)
        await asyncio.to_thread(self._keys.add)
        return await self._load()

    async def _check_fit(self, ring: KeyRing) -> None:
        """Refuse to seal under keys of which none fits what is there: they are the wrong ones."""
        held = await self._store.count_secrets_by_key()
        if held and not any(ring.find(key_id) for key_id in held):
            raise self._missing(next(iter(held)), ring)

    async def _read(self, identity: SecretIdentity) -> str | None:
        record = await self._record(identity)
        if record is None:
            return None
        try:
            return await self._open(record)
        except MasterKeyError:
            # A rotation may have rewrapped it, and retired the key, since the record was read.
            again = await self._record(identity)
            if again is None or again.key_id == record.key_id:
                raise
            return await self._open(again)

    async def _open(self, record: SecretRecord) -> str:
        if not record.key_id:
            raise _foreign(record)
        key = self._ring.find(record.key_id)
        if key is None:
            await self._load()
            key = self._ring.find(record.key_id)
        if key is None:
            raise self._missing(record.key_id, self._ring, record)
        try:
            value = unseal(key, record.identity, _sealed(record)).decode("utf-8")
        except (BrokenSeal, UnicodeDecodeError):
            raise _damaged([record]) from None
        HELD.add(value)
        return value

    async def _load(self) -> KeyRing:
        self._ring = await asyncio.to_thread(self._keys.load)
        return self._ring

    async def _record(self, identity: SecretIdentity) -> SecretRecord | None:
        return await self._store.get_secret(identity)

    def _check_value(self, secret: NewSecret) -> None:
        where = f"secret {secret.identity}"
        try:
            size = len(secret.value.encode("utf-8"))
        except UnicodeEncodeError:
            raise InputError(
                "the value is no valid Unicode text",
                where=where,
                remedy="encode it first, for example as base64, and let the agent decode it",
            ) from None
        if size == 0:
            raise InputError(
                "the value is empty", where=where, remedy="give a value, or delete the secret"
            )
        if size > self._max_bytes:
            raise InputError(
                f"the value is larger than the limit of {self._max_bytes:,} bytes",
                where=where,
                remedy="keep large data in a file, or raise SWARM_MAX_SECRET_BYTES",
            )

    def _missing(
        self, key_id: str, ring: KeyRing, record: SecretRecord | None = None
    ) -> MasterKeyError:
        there = ", ".join(key.id for key in ring.keys) or "none"
        what = f"the secret {record.identity} needs" if record else "stored secrets need"
        return MasterKeyError(
            f"{what} the master key {key_id}, which is not there; the keys there: {there}",
            where=self._keys.place,
            remedy="put the key back, or choose its source (SWARM_MASTER_KEY_SOURCE); nothing was "
            "changed, and the secrets can be read again as soon as it is there",
        )


def _sealed_record(ring: KeyRing, secret: NewSecret) -> SecretRecord:
    identity = secret.identity
    sealed = seal(ring.newest, identity, secret.value.encode("utf-8"))
    return SecretRecord(
        id=new_id("sec"),
        name=identity.name,
        scope=identity.scope,
        encrypted_value=sealed.encrypted_value,
        wrapped_key=sealed.wrapped_key,
        key_id=sealed.key_id,
        workflow_id=secret.workflow_id,
        workflow_name=identity.workflow,
        project_id=identity.project_id,
        organization_id=identity.organization_id,
    )


def _sealed(record: SecretRecord) -> Sealed:
    return Sealed(record.encrypted_value, record.wrapped_key, record.key_id)


def _scope_text(record: SecretRecord) -> str:
    if record.scope is SecretScope.ORGANIZATION:
        return "of the organization (--organization)"
    if record.workflow_name is None:
        return "of the project (without --workflow)"
    return f"of the workflow {record.workflow_name} (--workflow {record.workflow_name})"


def _foreign(record: SecretRecord) -> DatabaseError:
    return DatabaseError(
        f"the secret {record.identity} was put into the database by something else than Swarm",
        where="table secrets",
        remedy="set it anew, or delete it; what it held before cannot be told from encrypted bytes",
    )


def _damaged(records: Sequence[SecretRecord]) -> DatabaseError:
    names = ", ".join(str(record.identity) for record in records)
    return DatabaseError(
        f"the check of what is stored failed: {names}",
        where="table secrets",
        remedy="it was changed or damaged outside of Swarm: set it anew, or put back a backup of "
        "the database",
    )
