"""Packages and locks on their way between machines that share a database.

A package travels as its archive, which is the same bytes wherever it is packed, and is taken only
if its files have the digest that it was asked for by. A lock travels as it is: the first machine
that makes one for a package decides for all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from swarm.kernel.errors import ArchiveError, DamagedError, DefinitionError
from swarm.kernel.settings import Settings
from swarm.packages.archive import ARCHIVE_SUFFIX, pack
from swarm.packages.locks import run_to_end
from swarm.packages.package import Package
from swarm.packages.reading import read_package
from swarm.store.shared.files import SharedFiles, write_to

MAX_LOCK_BYTES = 64 * 1024 * 1024
"""Largest lock that is taken from elsewhere."""


class SharedPackages:
    """What the machines of one database know of packages."""

    def __init__(self, shared: SharedFiles, settings: Settings) -> None:
        self._shared = shared
        self._settings = settings

    async def publish(self, package: Package, scratch: Path) -> None:
        """Have every machine find a package.

        Args:
            package: as it was pinned.
            scratch: the folder for its archive while it is sent.

        Raises:
            RefusedError: it is larger than the database is to hold, and there is no bucket.
            UnavailableError: it cannot be packed or published.
        """
        if not await self._shared.do(self._shared.has, "package", package.digest):
            await run_to_end(self._publish, package, scratch)

    async def bring(self, digest: str, archive: Path) -> Package:
        """Write the package with this digest to the file ``archive``, and read it.

        Raises:
            NotFoundError: no machine has published it.
            DamagedError: what came is not that package.
            UnavailableError: it cannot be fetched, or not be written.
        """
        return await run_to_end(self._bring, digest, archive)

    async def lock(self, name: str) -> str | None:
        """The lock that a machine has published under this name."""
        if not await self._shared.do(self._shared.has, "lock", name):
            return None
        return await self._shared.do(self._shared.fetch, "lock", name, _text)

    async def publish_lock(self, name: str, file: Path) -> str:
        """Have every machine find a lock; return the one that holds, which may be another's."""
        await self._shared.do(self._publish_lock, name, file)
        return await self._shared.do(self._shared.fetch, "lock", name, _text)

    def _publish(self, package: Package, scratch: Path) -> None:
        with tempfile.NamedTemporaryFile(dir=scratch, suffix=ARCHIVE_SUFFIX) as file:
            path = pack(package, Path(file.name))
            with path.open("rb") as source:
                self._shared.publish("package", package.digest, source)

    def _publish_lock(self, name: str, file: Path) -> None:
        with file.open("rb") as source:
            self._shared.publish("lock", name, source)

    def _bring(self, digest: str, archive: Path) -> Package:
        def take(pieces: Iterator[bytes]) -> None:
            archive.unlink(missing_ok=True)
            write_to(archive, pieces)

        self._shared.fetch("package", digest, take)
        try:
            package = read_package(archive, self._settings)
        except (ArchiveError, DefinitionError) as error:
            raise _damaged(digest, error.message) from None
        if package.digest != digest:
            raise _damaged(digest, f"it has the digest {package.digest}")
        return package


def _text(pieces: Iterator[bytes]) -> str:
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) > MAX_LOCK_BYTES:
            raise DamagedError(f"a shared lock is larger than {MAX_LOCK_BYTES:,} bytes")
    return data.decode()


def _damaged(digest: str, fault: str) -> DamagedError:
    return DamagedError(
        f"the package {digest} is damaged: {fault}",
        remedy="nothing of it was used; look into who changed it in the shared store, delete it "
        "there and register the agent again where its source is",
    )
