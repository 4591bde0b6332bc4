"""An agent's package: its manifest, its files, and the digest that names their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from swarm.definitions.agent import AgentDefinition
from swarm.kernel.errors import ConflictError
from swarm.kernel.json import dump_bytes

MANIFEST = "agent.yaml"
DIGEST_FORMAT = "swarm-package-1"
"""Hashed along with the files, so that another way to count them gives other digests."""


@dataclass(frozen=True, slots=True, order=True)
class PackageFile:
    """One file of a package."""

    path: str
    """Relative POSIX path."""
    size: int
    """In bytes."""
    sha256: str
    """64 hexadecimal digits."""
    executable: bool = False

    @property
    def mode(self) -> int:
        """The permissions that every copy of it gets: 0755 or 0644."""
        return 0o755 if self.executable else 0o644


class Contents(Protocol):
    """Where a package's bytes come from: a folder or an archive."""

    @property
    def files(self) -> tuple[PackageFile, ...]:
        """Every file, sorted by path."""
        ...

    def open(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Open one of :attr:`files` to read it from its start."""
        ...


@dataclass(frozen=True, slots=True)
class Package:
    """A package that was read and checked; ``digest`` is 64 hexadecimal digits."""

    definition: AgentDefinition
    digest: str
    contents: Contents
    root: Path
    """The folder, or the archive, that it was read from."""
    is_archive: bool = False

    @property
    def files(self) -> tuple[PackageFile, ...]:
        """Every file, sorted by path."""
        return self.contents.files

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def has(self, path: str) -> bool:
        return any(file.path == path for file in self.files)

    def read(self, path: str) -> bytes:
        """The content of one file, checked against its digest.

        Raises:
            KeyError: the package has no such file.
            ConflictError: the file was changed since the package was read.
        """
        return read_checked(self.contents, path)


def package_digest(files: Iterable[PackageFile]) -> str:
    """The digest of a package's content, as 64 hexadecimal digits.

    It covers each file's path, executable bit and bytes, in the order of the paths' code points;
    nothing else of the file system (times, owners, other mode bits, empty folders) counts.
    """
    rows = [[file.path, file.executable, file.size, file.sha256] for file in sorted(files)]
    return hashlib.sha256(dump_bytes([DIGEST_FORMAT, rows])).hexdigest()


def read_checked(contents: Contents, path: str) -> bytes:
    """The bytes of one file of ``contents``; see :meth:`Package.read`."""
    expected = {file.path: file for file in contents.files}[path]
    with contents.open(path) as stream:
        data = stream.read(expected.size + 1)
    if len(data) != expected.size or hashlib.sha256(data).hexdigest() != expected.sha256:
        raise changed(path)
    return data


def changed(path: str) -> ConflictError:
    """The error for a file that is no longer what was read before."""
    return ConflictError(
        f"the file `{path}` was changed while the package was being read",
        where=path,
        remedy="try again once nothing writes to the package",
    )
