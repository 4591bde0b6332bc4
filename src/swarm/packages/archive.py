"""``.apkg`` archives: packed reproducibly, looked into, and unpacked without trust."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from swarm.definitions.agent import AgentDefinition
from swarm.kernel.errors import (
    ArchiveError,
    ConflictError,
    DefinitionError,
    Problem,
    SwarmError,
    UnavailableError,
)
from swarm.kernel.settings import Settings
from swarm.packages.folders import CHUNK_BYTES, write_tree
from swarm.packages.ignoring import Ignored
from swarm.packages.manifest import read_manifest
from swarm.packages.package import (
    Contents,
    Package,
    PackageFile,
    changed,
    package_digest,
)
from swarm.packages.zips import ZipEntry, open_archive, read_entries, unpack

ARCHIVE_SUFFIX = ".apkg"
EARLIEST_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of every member: the first that a zip can express."""


@dataclass(frozen=True, slots=True)
class ArchiveContents:
    """The files of an archive whose structure and checksums were checked."""

    archive: Path
    files: tuple[PackageFile, ...]
    entries: dict[str, ZipEntry]

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Open a member; its bytes are unpacked, and checked again, as they are read."""
        with open_archive(self.archive) as stream:
            yield io.BufferedReader(_Member(unpack(stream, self.archive, self.entries[path])))


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What an archive holds, found without unpacking it."""

    path: Path
    archive_bytes: int
    unpacked_bytes: int
    files: tuple[PackageFile, ...]
    digest: str
    definition: AgentDefinition | None
    """None when the manifest is missing or cannot be used; ``problems`` says why."""
    problems: tuple[Problem, ...]


def pack(package: Package, destination: Path) -> Path:
    """Write a package as an ``.apkg``; the same files give the same bytes on every machine.

    Members are sorted, have fixed times and modes, and are stored without compression, because
    the bytes that deflate writes differ between versions of zlib.

    Args:
        package: what to pack.
        destination: the archive to write (replaced if it is there), or a folder to write
            ``<name>-<version>.apkg`` into.

    Returns:
        The archive's path.

    Raises:
        ConflictError: a file was changed since the package was read.
        UnavailableError: the archive cannot be written.
    """
    if destination.is_dir():
        definition = package.definition
        destination /= f"{definition.name}-{definition.version}{ARCHIVE_SUFFIX}"
    try:
        descriptor, name = tempfile.mkstemp(prefix=".swarm-pack-", dir=destination.parent)
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                _write_members(package, stream)
                os.fchmod(stream.fileno(), 0o644)
            partial.replace(destination)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(destination, error) from None
    return destination


def inspect_archive(path: Path, settings: Settings) -> ArchiveReport:
    """Look into an archive without writing anything to disk.

    Problems of the manifest are in the report.

    Raises:
        ArchiveError: the archive is damaged, hostile or over the limits.
        NotFoundError: there is no such archive.
    """
    contents = read_archive(path, settings)
    definition: AgentDefinition | None = None
    problems: tuple[Problem, ...] = ()
    try:
        definition = read_manifest(contents, str(path), settings)
    except DefinitionError as error:
        problems = error.problems
    return ArchiveReport(
        path=path,
        archive_bytes=path.stat().st_size,
        unpacked_bytes=sum(file.size for file in contents.files),
        files=contents.files,
        digest=package_digest(contents.files),
        definition=definition,
        problems=problems,
    )


def read_archive(path: Path, settings: Settings) -> ArchiveContents:
    """Check an archive and hash its files, unpacking them in memory piece by piece.

    Raises:
        ArchiveError, NotFoundError, UnavailableError: as :func:`inspect_archive`.
    """
    ignored = Ignored()
    entries: dict[str, ZipEntry] = {}
    files: list[PackageFile] = []
    with open_archive(path) as stream:
        for entry in read_entries(stream, path, settings):
            digest = hashlib.sha256()
            for data in unpack(stream, path, entry):
                digest.update(data)
            if not ignored.leaves_out(entry.path):
                entries[entry.path] = entry
                files.append(
                    PackageFile(entry.path, entry.size, digest.hexdigest(), entry.executable)
                )
    return ArchiveContents(path, tuple(sorted(files)), entries)


def extract(path: Path, into: Path, settings: Settings) -> Path:
    """Unpack an archive into the folder ``into``, which must not be there yet.

    All of it is there afterwards, or nothing. What a package never holds (``.git``, ``*.pyc``,
    ...) is left out, as it is when a folder is read.

    Raises:
        ArchiveError: the archive is damaged, hostile or over the limits.
        ConflictError: ``into`` is there already.
        NotFoundError: there is no such archive.
        UnavailableError: it cannot be written.
    """
    contents = read_archive(path, settings)
    place_tree(contents, into)
    return into


def place_tree(contents: Contents, into: Path, *, durable: bool = False) -> None:
    """Write ``contents`` to the new folder ``into``: first beside it, then renamed.

    Raises:
        ConflictError: ``into`` is there already; UnavailableError: it cannot be written.
    """
    if os.path.lexists(into):
        raise _occupied(into)
    try:
        partial = Path(tempfile.mkdtemp(prefix=".swarm-partial-", dir=into.parent))
    except OSError as error:
        raise _unwritable(into, error) from None
    try:
        write_tree(contents, partial, durable=durable)
        try:
            partial.rename(into)
        except OSError as error:
            if into.is_dir():
                raise _occupied(into) from None
            raise _unwritable(into, error) from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


class _Member(io.RawIOBase):
    """A member's content as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _write_members(package: Package, stream: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
            for file in package.files:
                _write_member(package, file, archive)
    except zipfile.LargeZipFile:
        raise ArchiveError(
            "the package is too large for an archive: 4 GiB and 65,535 files at most",
            where=str(package.root),
            remedy="leave files out with .swarmignore",
        ) from None


def _write_member(package: Package, file: PackageFile, archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo(file.path, EARLIEST_TIME)
    member.create_system = 3  # Unix, so that readers take the mode from external_attr
    member.external_attr = (stat.S_IFREG | file.mode) << 16
    member.file_size = file.size
    digest = hashlib.sha256()
    left = file.size
    with package.contents.open(file.path) as source, archive.open(member, "w") as target:
        while chunk := source.read(min(CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise changed(file.path)
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != file.sha256:
        raise changed(file.path)


def _occupied(into: Path) -> SwarmError:
    return ConflictError(
        "there is something in the way", where=str(into), remedy="choose another place"
    )


def _unwritable(path: Path, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"it cannot be written: {error.strerror}",
        where=str(path),
        remedy="make room, or choose a folder that you may write",
    )
