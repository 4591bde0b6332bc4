"""What sharing files asks of an index of them, and of the places that hold their bytes.

A blob is one upload of a file. It lies at a location that no other upload ever has, so that a blob
which is being deleted never takes a newer one of the same content with it. The index says which
blob is the present one of a key; a row is there before the first byte of its blob and after the
last, so no byte lies anywhere that the index does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Literal, Protocol

from msgspec import Struct

Kind = Literal["artifact", "package", "lock"]
Place = Literal["database", "bucket"]


HEAD_BYTES = 16


class Blob(Struct, frozen=True):
    """One upload of a file."""

    kind: Kind
    key: str
    """What it is asked for by: the digest of an artifact or a package, or the name of a lock."""
    sha256: str
    """Of its bytes, 64 hexadecimal digits."""
    size: int
    """In bytes."""
    place: Place
    location: str
    """Unique among all blobs: ``<kind>/<first two of key>/<rest>.<16 random digits>``."""
    head: bytes = b""
    """The first bytes, HEAD_BYTES at most: what collecting must look into is told by them."""


class BlobIndex(Protocol):
    """Which blobs there are. Every method is one statement, blocks, and may be done again."""

    def touch(self, kind: Kind, key: str) -> Blob | None:
        """The present blob of a key, which is young again; None if there is none."""
        ...

    def find(self, kind: Kind, key: str) -> Blob | None:
        """The present blob of a key."""
        ...

    def begin(self, blob: Blob) -> None:
        """Note that a blob is about to be written; nobody finds it yet."""
        ...

    def finish(self, blob: Blob) -> bool:
        """Make a blob that was written the present one; False if its key has one already."""
        ...

    def doom(self, blob: Blob) -> None:
        """Note that a blob is to be deleted: nobody finds it any more."""
        ...

    def doom_unused(self, kind: Kind, keys: list[str], age_seconds: float) -> tuple[int, int]:
        """Doom the present blobs of those of ``keys`` that nobody has touched for so long; return
        how many there were, and their bytes. Whoever touches one at that moment keeps it, or finds
        it gone."""
        ...

    def doom_unfinished(self, age_seconds: float) -> int:
        """Doom the blobs that were begun so long ago and never finished."""
        ...

    def old_keys(self, kind: Kind, age_seconds: float, after: str, limit: int) -> list[str]:
        """Keys of present blobs that nobody has touched for so long, in order."""
        ...

    def doomed(self, limit: int) -> list[Blob]:
        """Blobs to be deleted."""
        ...

    def forget(self, blob: Blob) -> None:
        """Note that a doomed blob's bytes are gone."""
        ...

    def keys_beginning(self, kind: Kind, head: bytes, after: str, limit: int) -> list[str]:
        """Keys of present blobs whose first bytes are these, in order."""
        ...

    def alone(self) -> AbstractContextManager[bool]:
        """Whether this is the one process, of all machines, that collects; it is until the end."""
        ...

    def was_collected(self, within_seconds: float) -> bool:
        """Whether some machine has collected so recently."""
        ...

    def note_collection(self) -> None:
        """Note that this machine has collected."""
        ...

    def close(self) -> None: ...


class BlobBytes(Protocol):
    """One place that holds the bytes of blobs. Every method blocks, and may be done again."""

    def write(self, blob: Blob, source: BinaryIO) -> None:
        """Keep all of ``source``, with little of it in memory at a time.

        Raises:
            UnavailableError: the place cannot be written.
        """
        ...

    def read(self, blob: Blob) -> Iterator[bytes]:
        """The bytes, in pieces.

        Raises:
            NotFoundError: they are gone.
            UnavailableError: the place cannot be read.
        """
        ...

    def holds(self, blob: Blob) -> bool:
        """Whether there are as many bytes as there should be.

        Raises:
            UnavailableError: it cannot be told.
        """
        ...

    def remove(self, blob: Blob) -> None:
        """Delete the bytes, as far as they are there."""
        ...

    def close(self) -> None: ...
