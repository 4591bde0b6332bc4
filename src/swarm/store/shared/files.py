"""Files that every machine of one database can get, by what they are and a key."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from swarm.kernel.errors import (
    DamagedError,
    InputError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from swarm.kernel.settings import MIB, Settings
from swarm.store.shared.ports import HEAD_BYTES, Blob, BlobBytes, BlobIndex, Kind, Place

TRANSFERS_AT_ONCE: Final = 8
"""Files of one process that are on their way at once."""
_CHUNK_BYTES: Final = 1 * MIB
_LOOKS: Final = 3
"""How often a blob is looked up that was replaced while it was being read."""

Result = TypeVar("Result")


class SharedFiles:
    """Publishes files and brings them to this machine.

    Its methods block; :meth:`do` runs them off the event loop.
    """

    def __init__(
        self, index: BlobIndex, places: Mapping[Place, BlobBytes], settings: Settings
    ) -> None:
        self.index = index
        self.places = places
        self._settings = settings
        self._threads = ThreadPoolExecutor(TRANSFERS_AT_ONCE, "swarm-transfer")

    async def do(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Run something that blocks in one of the threads for it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    def close(self) -> None:
        """Close connections; what is asked for later opens them anew."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.index.close()
        for place in self.places.values():
            place.close()

    def publish(self, kind: Kind, key: str, source: BinaryIO) -> None:
        """Have every machine find ``source`` under ``key``. What is there already is not sent
        again, but is young again: whoever publishes something may refer to it.

        Raises:
            RefusedError: it is larger than the database is to hold, and there is no bucket.
            UnavailableError: the place cannot be written.
        """
        for _ in range(_LOOKS):
            if self.has(kind, key) or self._upload(kind, key, source):
                return
        raise UnavailableError(
            f"{kind} {key} cannot be published: it was deleted each time",
            remedy="look into what collects unused files there, and try again",
        )

    def has(self, kind: Kind, key: str) -> bool:
        """Whether there is something under ``key``; it is young again if there is.

        If its bytes are gone or cut, somebody has deleted them behind our back: nobody finds it
        any more, so that it can be published again.
        """
        blob = self.index.touch(kind, key)
        if blob is None:
            return False
        place = self.places.get(blob.place)
        if place is None or place.holds(blob):
            return True
        self.index.doom(blob)
        return False

    def read(self, kind: Kind, key: str) -> Iterator[bytes]:
        """The bytes under ``key``, in pieces. Whoever takes them may rely on them only once the
        last has come: they are checked then.

        Raises:
            NotFoundError: there is nothing.
            DamagedError: they are not what was published.
            UnavailableError: they cannot be read.
        """
        blob = self._find(kind, key)
        digest, size = hashlib.sha256(), 0
        for piece in self.places[blob.place].read(blob):
            digest.update(piece)
            size += len(piece)
            yield piece
        if size != blob.size or digest.hexdigest() != blob.sha256:
            raise damaged(kind, key, f"{blob.place}: {blob.location}")

    def fetch(self, kind: Kind, key: str, take: Callable[[Iterator[bytes]], Result]) -> Result:
        """Give ``take`` the bytes under ``key``; again if they were replaced meanwhile.

        Raises:
            NotFoundError, DamagedError, UnavailableError: as :meth:`read`.
        """
        for look in range(_LOOKS):
            before = self._find(kind, key)
            try:
                return take(self.read(kind, key))
            except NotFoundError:
                # Deleted after it was found; somebody may have published it anew.
                after = self.index.find(kind, key)
                if look == _LOOKS - 1 or after is None or after.location == before.location:
                    raise
        raise AssertionError("the last look returns or raises")

    def sweep(self, limit: int) -> int:
        """Delete the bytes of doomed blobs; return how many there were, ``limit`` at most."""
        doomed = self.index.doomed(limit)
        for blob in doomed:
            if (place := self.places.get(blob.place)) is not None:
                place.remove(blob)
                self.index.forget(blob)
        return len(doomed)

    def _find(self, kind: Kind, key: str) -> Blob:
        blob = self.index.find(kind, key)
        if blob is None:
            raise missing(kind, key)
        if blob.place not in self.places:
            raise NotFoundError(
                f"{kind} {key} lies in a bucket, and this machine is told of none",
                remedy="set artifact_url on every machine, to the same bucket",
            )
        return blob

    def _upload(self, kind: Kind, key: str, source: BinaryIO) -> bool:
        """Whether this upload is the present one now; if not, nothing is left of it."""
        size, sha256, head = _measure(source)
        place_name = self._place_for(size, kind, key)
        blob = Blob(kind, key, sha256, size, place_name, location(kind, key), head)
        place = self.places[blob.place]
        self.index.begin(blob)
        try:
            source.seek(0)
            place.write(blob, source)
            is_first = self.index.finish(blob)
        except BaseException:
            # Should this fail too, the row stays, and collecting finds it.
            self.index.doom(blob)
            raise
        if not is_first:
            self.index.doom(blob)
            place.remove(blob)
            self.index.forget(blob)
        return is_first

    def _place_for(self, size: int, kind: Kind, key: str) -> Place:
        if "bucket" in self.places:
            return "bucket" if size > self._settings.artifact_inline_bytes else "database"
        most = self._settings.artifact_database_mb
        if size > most * MIB:
            raise RefusedError(
                f"{kind} {key[:12]} has {size:,} bytes; the database takes {most} MiB at most",
                remedy="set artifact_url to a bucket of an S3-compatible store, on every machine; "
                "or raise the setting artifact_database_mb",
            )
        return "database"


def location(kind: Kind, key: str) -> str:
    """A new location for a blob."""
    return f"{kind}/{key[:2]}/{key[2:]}.{os.urandom(8).hex()}"


def missing(kind: Kind, key: str) -> NotFoundError:
    """The error for what no machine has published."""
    return NotFoundError(
        f"there is no {kind} {key} in the shared store",
        remedy="it may belong to a home of before, or be purged; give it again "
        "(`swarm agent register` for a package)",
    )


def damaged(kind: Kind, key: str, where: str) -> DamagedError:
    """The error for bytes that are not those of their digest."""
    return DamagedError(
        f"{kind} {key} is damaged: its bytes do not have the digest they are kept under",
        where=where,
        remedy="nothing of it was used; delete it there and give the file again, and look into who "
        "changed it",
    )


def write_to(path: Path, pieces: Iterator[bytes]) -> None:
    """Write pieces to a new file, and on to the disk. Raises OSError."""
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _measure(source: BinaryIO) -> tuple[int, str, bytes]:
    """The size, the digest and the first bytes of a file."""
    digest, size, head = hashlib.sha256(), 0, b""
    try:
        source.seek(0)
        while chunk := source.read(_CHUNK_BYTES):
            head = head or chunk[:HEAD_BYTES]
            digest.update(chunk)
            size += len(chunk)
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror or error}") from None
    return size, digest.hexdigest(), head
