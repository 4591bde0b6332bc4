"""Copies of registered packages, one folder for each digest, which nothing edits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from swarm.kernel.durability import sync_folder
from swarm.kernel.errors import SwarmError, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.folders import read_folder, write_tree
from swarm.packages.ignoring import Ignored
from swarm.packages.locks import exclusive, run_to_end
from swarm.packages.package import Package, package_digest


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
            raise UnavailableError(
                f"the package cannot be copied into the home: {error.strerror}",
                where=str(error.filename or target),
                remedy="make room, or make the home writable",
            ) from None
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
