"""Dependencies of packages, installed once for each lock, interpreter and platform.

Nothing of a package or of its dependencies runs meanwhile: Python takes wheels only, npm ignores
scripts. An environment lies in ``environments/<digest>/`` with ``site-packages`` or
``node_modules``; its marker is written last, so a folder without one is built anew. A package that
comes without a lock is locked when it is first registered, and that lock is kept for its digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.kernel.durability import sync_folder
from swarm.kernel.errors import UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.json import JsonObject, dump_bytes
from swarm.kernel.settings import Settings
from swarm.packages.installers import Installer, installer_for, installer_run
from swarm.packages.locks import exclusive, run_to_end
from swarm.packages.package import Package
from swarm.packages.processes import InstallerRun
from swarm.packages.sharing import SharedPackages

MARKER = "environment.json"
"""Says what the environment was made for; written when all else is there."""
ENVIRONMENT_FORMAT = "swarm-environment-1"
LOCKS = "locks"
"""The folder of the locks made here, ``<package's digest>-<key>``."""


class EnvironmentInstaller:
    """The folders ``environments/<digest>/`` of a home."""

    def __init__(
        self, home: Home, settings: Settings, shared: SharedPackages | None = None
    ) -> None:
        """``shared`` is where locks of other machines are."""
        self._root = home.environments
        self._settings = settings
        self._shared = shared

    def path(self, digest: str) -> Path:
        return self._root / digest

    def is_complete(self, digest: str) -> bool:
        """Whether the environment is there, to its last file."""
        return (self.path(digest) / MARKER).is_file()

    async def install(
        self, package: Package, on_progress: Callable[[str], None] | None = None
    ) -> tuple[str, Path] | None:
        """Install what ``package`` depends on, unless that is there.

        Args:
            package: the package; only its declarations are read.
            on_progress: told what is being done, one line at a time.

        Returns:
            The environment's digest and folder, or None when the package depends on nothing.

        Raises:
            DefinitionError: it declares what no registry can give.
            DependencyError: locking or installing failed, or took longer than
                ``install_timeout_seconds``.
            UnavailableError: the home cannot be written, or there is no Node.
        """
        run = installer_run(package, self._settings, on_progress)
        installer = await asyncio.to_thread(installer_for, package, self._settings, run)
        if installer is None:
            return None
        with _writing(self._root):
            identity = await installer.identity()
            lock = installer.locked
            if lock is None:
                lock = await self._lock(package.digest, installer, identity, run)
            digest = _digest(ENVIRONMENT_FORMAT, identity, lock)
            async with exclusive(self._root / ".locks" / digest):
                if self.is_complete(digest):
                    os.utime(self.path(digest))  # about to be used: see collecting.remove_unused
                else:
                    run.tell(f"installing {run.subject}")
                    await self._build(digest, installer, identity, lock)
        return digest, self.path(digest)

    async def _lock(
        self, package_digest: str, installer: Installer, identity: JsonObject, run: InstallerRun
    ) -> str:
        """The lock made for this package when it was first registered, or a new one.

        Kept, so that registering the same package again gives the same environment; a package
        with other bytes is locked anew and gets newer versions. Where machines share a database,
        the lock is one for all of them.
        """
        # One for all machines must be for all interpreters and platforms.
        fits = identity if self._shared is None else {"runtime": identity.get("runtime")}
        key = _digest(ENVIRONMENT_FORMAT, fits, package_digest)
        file = self._root / LOCKS / f"{package_digest}-{key}"
        async with exclusive(self._root / ".locks" / key):
            if file.is_file():
                os.utime(file)
                return file.read_text("utf-8")
            lock = await self._shared.lock(file.name) if self._shared is not None else None
            with self._scratch(key) as scratch:
                written = scratch / "lock"
                if lock is None:
                    run.tell(f"locking {run.subject}")
                    lock = await installer.lock(scratch, portable=self._shared is not None)
                    written.write_text(lock, "utf-8")
                    if self._shared is not None:
                        lock = await self._shared.publish_lock(file.name, written)
                written.write_text(lock, "utf-8")
                file.parent.mkdir(exist_ok=True)
                written.replace(file)
            return lock

    async def _build(
        self, digest: str, installer: Installer, identity: JsonObject, lock: str
    ) -> None:
        with self._scratch(digest) as scratch:
            await installer.install(lock, scratch)
            await run_to_end(self._finish, scratch, identity)
            target = self.path(digest)
            if target.exists():
                await run_to_end(shutil.rmtree, target)
            scratch.rename(target)
            if self._settings.durability == "full":
                await asyncio.to_thread(sync_folder, self._root)

    def _finish(self, folder: Path, identity: JsonObject) -> None:
        """Let every user read it (a sandbox runs as another one), then mark it as complete."""
        for parent, _, files in os.walk(folder):
            Path(parent).chmod(0o755)
            for name in files:
                file = Path(parent, name)
                if not file.is_symlink():
                    file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
        (folder / MARKER).write_bytes(dump_bytes(identity))
        (folder / MARKER).chmod(0o644)
        if self._settings.durability == "full":
            os.sync()

    @contextmanager
    def _scratch(self, key: str) -> Iterator[Path]:
        """An empty folder for the holder of the lock on ``key``; gone afterwards."""
        folder = self._root / f".partial-{key}"
        if folder.exists():
            shutil.rmtree(folder)  # left by a process that was killed
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"the environment cannot be written: {error.strerror}",
            where=str(error.filename or root),
            remedy="make room, or make the home writable",
        ) from None


def _digest(*parts: object) -> str:
    return hashlib.sha256(dump_bytes(list(parts))).hexdigest()
