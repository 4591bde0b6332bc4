"""Files kept by their content: ``<root>/sha256/ab/cdef…``, named by the SHA-256 of what they hold.

A file appears under its name only when it is whole and on disk, so readers need no lock, and
writers of the same content at the same time end with one file.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from swarm.kernel.durability import make_folder, sync_folder
from swarm.kernel.errors import DamagedError, InputError, NotFoundError, UnavailableError
from swarm.kernel.settings import MIB

ALGORITHM = "sha256"
CHUNK_BYTES = 1 * MIB
"""How much is read, hashed and written at a time."""
_HEX_DIGITS = frozenset("0123456789abcdef")


class LocalArtifacts:
    """The artifacts of one home, in a folder. Implements :class:`swarm.store.ports.ArtifactStore`.

    Every ``put`` returns the reference once the content is durable, and works off the event loop.
    """

    directories = None

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / ALGORITHM

    async def put_bytes(self, data: bytes) -> str:
        """Keep ``data``.

        Raises:
            UnavailableError: it cannot be written (disk full, read-only, ...).
        """
        return await asyncio.to_thread(self.keep_bytes, data)

    async def put_file(self, path: Path) -> str:
        """Copy the regular file at ``path`` in; a symbolic link is followed.

        Raises:
            InputError: it cannot be read or is no regular file.
            UnavailableError: it cannot be written.
        """
        return await asyncio.to_thread(self.keep_file, path)

    async def put_descriptor(self, descriptor: int) -> str:
        """Copy an open regular file in, from its start; the descriptor's position stays.

        Raises:
            InputError: it cannot be read or is no regular file.
            UnavailableError: it cannot be written.
        """
        return await asyncio.to_thread(self.keep_descriptor, descriptor)

    def path(self, reference: str) -> Path:
        """Where the content of ``reference`` lies; raises NotFoundError if it is not here."""
        digest = artifact_digest(reference)
        if digest and (path := self.place(digest)).is_file():
            return path
        raise NotFoundError(
            f"there is no artifact {reference}",
            where=str(self._root),
            remedy="it may belong to another home; give the file itself again",
        )

    async def fetch(self, reference: str) -> Path:
        """:meth:`path`; everything lies here."""
        return self.path(reference)

    @contextmanager
    def held(self, references: Iterable[str]) -> Iterator[None]:
        """Nothing here is evicted."""
        yield

    def keep_bytes(self, data: bytes) -> str:
        """:meth:`put_bytes`, in this thread."""
        return self._keep(io.BytesIO(data))

    def keep_file(self, path: Path) -> str:
        """:meth:`put_file`, in this thread."""
        try:
            # Non-blocking, so that a FIFO without a writer cannot hold the thread.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _unreadable(error.strerror or str(error), str(path)) from None
        try:
            return self._keep_open(descriptor, str(path))
        finally:
            os.close(descriptor)

    def keep_descriptor(self, descriptor: int) -> str:
        """:meth:`put_descriptor`, in this thread."""
        return self._keep_open(descriptor, f"descriptor {descriptor}")

    def receive(self, digest: str, pieces: Iterable[bytes]) -> Path:
        """Keep what comes from elsewhere under the digest that it must have; return where.

        Raises:
            DamagedError: it has another; nothing of it is kept.
            UnavailableError: it cannot be written.
        """
        with self._writing(), _Copy(self._folder) as copy:
            found = copy.fill(pieces)
            if found != digest:
                raise DamagedError(
                    f"the artifact {ALGORITHM}:{digest} is damaged: what came has the digest "
                    f"{found}",
                    where=str(self._root),
                    remedy="nothing of it was kept; put the file again where it came from",
                )
            self._settle(copy, digest)
        return self.place(digest)

    def remove(self, digest: str) -> None:
        """Delete one, if it is there."""
        with self._locked(fcntl.LOCK_EX):
            self.place(digest).unlink(missing_ok=True)

    def place(self, digest: str) -> Path:
        """Where the content with this digest lies, or would."""
        return self._folder / digest[:2] / digest[2:]

    def shards(self) -> list[Path]:
        """The folders to go through with :meth:`remove_unused`."""
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if len(path.name) == 2)

    def remove_unused(self, shard: Path, in_use: Container[str], before: float) -> tuple[int, int]:
        """Delete the artifacts of one folder that are not in use and that nobody put since then.

        Safe while others put: whoever puts what is there already makes it young first.

        Args:
            shard: one of :meth:`shards`.
            in_use: references to keep.
            before: seconds since the epoch.

        Returns:
            How many were deleted, and their bytes.
        """
        count = size = 0
        for file in shard.iterdir():
            if f"{ALGORITHM}:{shard.name}{file.name}" in in_use:
                continue
            with self._locked(fcntl.LOCK_EX):
                status = file.stat()
                if status.st_mtime < before:
                    file.unlink()
                    count, size = count + 1, size + status.st_size
        return count, size

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Hold off deleting (``LOCK_SH``), or putting (``LOCK_EX``), in every process."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _make_shard(self, shard: Path) -> None:
        """Make a folder for artifacts. One that others can see while they put is durable."""
        if not shard.is_dir():
            with self._locked(fcntl.LOCK_EX):
                shard.mkdir(exist_ok=True)
                sync_folder(self._folder)
                sync_folder(self._root)

    def _keep_open(self, descriptor: int, where: str) -> str:
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError as error:
            raise _unreadable(error.strerror or str(error), where) from None
        if not stat.S_ISREG(mode):
            raise _unreadable("it is not a regular file", where)
        return self._keep(_FromStart(descriptor, where))

    def _keep(self, source: BinaryIO | _FromStart) -> str:
        with self._writing(), _Copy(self._folder) as copy:
            digest = copy.fill(iter(lambda: source.read(CHUNK_BYTES), b""))
            self._settle(copy, digest)
        return f"{ALGORITHM}:{digest}"

    def _settle(self, copy: _Copy, digest: str) -> None:
        """Have a whole copy appear in its place."""
        place = self.place(digest)
        self._make_shard(place.parent)
        with self._locked(fcntl.LOCK_SH):
            if place.exists():
                os.utime(place)  # it is young again: see remove_unused
                sync_folder(place.parent)  # whoever put it may not have come so far
            else:
                copy.appear(place)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            make_folder(self._folder)
            yield
        except OSError as error:
            raise UnavailableError(
                f"the artifact cannot be written: {error.strerror or error}",
                where=str(error.filename or self._folder),
                remedy="check that the disk has space left and that you may write the folder",
            ) from None


def artifact_digest(reference: str) -> str:
    """The digest in a reference to an artifact; empty if it is none."""
    algorithm, _, digest = reference.partition(":")
    is_one = algorithm == ALGORITHM and len(digest) == 64 and _HEX_DIGITS.issuperset(digest)
    return digest if is_one else ""


class _Copy:
    """A file being written. It has no name until it is whole, so that nothing is left of it when
    the process is killed; file systems that cannot do this get a name that starts with a dot."""

    def __init__(self, folder: Path) -> None:
        self._name: Path | None = None
        try:
            self._descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
            self._descriptor, name = tempfile.mkstemp(prefix=".part-", dir=folder)
            self._name = Path(name)

    def __enter__(self) -> _Copy:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if self._name is not None:
            self._name.unlink(missing_ok=True)

    def fill(self, pieces: Iterable[bytes]) -> str:
        """Write all of them; return their SHA-256 in hexadecimal."""
        digest = hashlib.sha256()
        for chunk in pieces:
            digest.update(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        return digest.hexdigest()

    def appear(self, place: Path) -> None:
        """Make the content durable, and then visible as ``place``, unless that is there already."""
        os.fchmod(self._descriptor, 0o444)
        os.fsync(self._descriptor)
        folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = self._name or f"/proc/self/fd/{self._descriptor}"
            with suppress(FileExistsError):
                # With a folder's descriptor, Python lets the kernel follow the link of /proc.
                os.link(source, place.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)


class _FromStart:
    """Reads a descriptor from offset 0 without moving the position it shares with its owner."""

    def __init__(self, descriptor: int, where: str) -> None:
        self._descriptor = descriptor
        self._where = where
        self._offset = 0

    def read(self, size: int) -> bytes:
        try:
            data = os.pread(self._descriptor, size, self._offset)
        except OSError as error:
            raise _unreadable(error.strerror or str(error), self._where) from None
        self._offset += len(data)
        return data


def _unreadable(reason: str, where: str) -> InputError:
    return InputError(
        f"the file cannot be kept: {reason}",
        where=where,
        remedy="give a regular file that you may read",
    )
