"""Locks of dependencies, written into a package before it is packed.

An archive goes to other machines, later: what it was tried with is what they should install. The
lock is kept in the folder, beside what declares it, so that packing again gives the same bytes.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from swarm.kernel.errors import ConflictError, UnavailableError
from swarm.kernel.settings import Settings
from swarm.packages.ignoring import IGNORE_FILE
from swarm.packages.installers import installer_for, installer_run
from swarm.packages.package import Package
from swarm.packages.reading import read_package


async def lock_package(
    package: Package, settings: Settings, on_progress: Callable[[str], None] | None = None
) -> tuple[Package, Path | None]:
    """Lock what a package depends on, unless it has a lock, depends on nothing or is an archive.

    Args:
        package: the package; nothing of it is run.
        settings: their time limit holds.
        on_progress: told what is being done, one line at a time.

    Returns:
        The package with its lock, and the file that was written into its folder, if one was.

    Raises:
        DependencyError: its dependencies cannot be resolved.
        UnavailableError: its folder cannot be written.
        ConflictError: the package leaves the lock out.
    """
    if package.is_archive:
        return package, None
    run = installer_run(package, settings, on_progress)
    installer = await asyncio.to_thread(installer_for, package, settings, run)
    if installer is None or installer.locked is not None:
        return package, None
    run.tell(f"locking {run.subject}")
    with tempfile.TemporaryDirectory(prefix="swarm-lock-") as scratch:
        lock = await installer.lock(Path(scratch), portable=True)
    file = package.root / installer.lock_file
    await asyncio.to_thread(_write, file, lock)
    locked = await asyncio.to_thread(read_package, package.root, settings)
    if not locked.has(installer.lock_file):
        raise ConflictError(
            f"the package leaves its lock `{installer.lock_file}` out",
            where=str(package.root / IGNORE_FILE),
            remedy="remove the pattern that matches it",
        )
    return locked, file


def _write(file: Path, text: str) -> None:
    try:
        descriptor, name = tempfile.mkstemp(prefix=".swarm-lock-", dir=file.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                os.fchmod(stream.fileno(), 0o644)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UnavailableError(
            f"the lock of its dependencies cannot be written: {error.strerror}",
            where=str(file),
            remedy="make the folder writable, or pack without a lock: `--no-lock`",
        ) from None
