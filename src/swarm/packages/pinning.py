"""Copies of registered packages, one folder for each digest, which nothing edits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from swarm.kernel.durability import sync_folder
from swarm.kernel.errors import DamagedError, SwarmError, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.folders import read_folder, write_tree
from swarm.packages.ignoring import Ignored
from swarm.packages.locks import exclusive, run_to_end
from swarm.packages.package import Package, package_digest
from swarm.packages.reading import read_package
from swarm.packages.sharing import SharedPackages


class PinnedPackages:
    """The folders ``packages/<digest>/`` of a home."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self._root = home.packages
        self._settings = settings

    def path(self, digest: str) -> Path:
        return self._root / digest

    async def pin(self, package: Package) -> Path:
        """Copy a package in, unless an intact copy is there; all of it, or nothing.

        Raises:
            ConflictError: a file was changed since the package was read.
            UnavailableError: the copy cannot be written.
        """
        async with exclusive(self._root / ".locks" / package.digest):
            return await run_to_end(self._pin, package)

    def has(self, digest: str) -> bool:
        """Whether the package is there. Copies appear when they are whole."""
        return self.path(digest).is_dir()

    async def bring(self, digest: str, shared: SharedPackages) -> tuple[Package, Path]:
        """Fetch a package from where machines share them, unless it is there.

        Raises:
            NotFoundError: no machine has published it.
            DamagedError: what came is not that package.
            UnavailableError: it cannot be fetched, or not be written.
        """
        async with exclusive(self._root / ".locks" / digest):
            if self.has(digest):
                return await self.read(digest), self.path(digest)
            arriving = self._root / f".arriving-{digest}"
            try:
                package = await shared.bring(digest, arriving)
                return package, await run_to_end(self._pin, package)
            except OSError as error:
                raise _unwritable(error, arriving) from None
            finally:
                arriving.unlink(missing_ok=True)

    async def read(self, digest: str) -> Package:
        """A package that is there.

        Raises:
            DamagedError: it was changed.
        """
        package = await run_to_end(read_package, self.path(digest), self._settings)
        if package.digest != digest:
            raise DamagedError(
                f"the package {digest} was changed: it has the digest {package.digest}",
                where=str(self.path(digest)),
                remedy="remove that folder, and register the agent again",
            )
        return package

    def _pin(self, package: Package) -> Path:
        target = self.path(package.digest)
        is_durable = self._settings.durability == "full"
        if self._is_intact(target, package.digest):
            os.utime(target)  # about to be used: see collecting.remove_unused
            if is_durable:
                sync_folder(self._root)  # whoever put it there may have been killed before
            return target
        partial = self._root / f".partial-{package.digest}"
        damaged = self._root / f".damaged-{package.digest}"
        try:
            # Left by a process that was killed; the lock says that nobody is at it.
            for leaving in (partial, damaged):
                if leaving.exists():
                    shutil.rmtree(leaving)
            partial.mkdir(parents=True)
            write_tree(package.contents, partial, durable=is_durable)
            if target.exists():
                target.rename(damaged)
            partial.rename(target)
            if is_durable:
                sync_folder(self._root)
            shutil.rmtree(damaged, ignore_errors=True)
        except OSError as error:
            raise _unwritable(error, target) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def _is_intact(self, target: Path, digest: str) -> bool:
        if not target.is_dir():
            return False
        try:
            contents = read_folder(target, Ignored(), self._settings)
        except SwarmError:
            return False  # whatever is wrong with the copy, it is made anew
        return package_digest(contents.files) == digest


def _unwritable(error: OSError, target: Path) -> UnavailableError:
    return UnavailableError(
        f"the package cannot be copied into the home: {error.strerror}",
        where=str(error.filename or target),
        remedy="make room, or make the home writable",
    )
