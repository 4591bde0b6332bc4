"""The host's folders of running machines, and what dead hosts left of theirs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.ids import new_id

_LOCK: Final = "lock"


class Workplace:
    """One process's folder below ``parent``; a lock in it says that the process lives.

    Raises:
        SandboxUnavailable: the folder cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        self._folder = parent / new_id("vms")
        try:
            self._folder.mkdir(parents=True, mode=0o700)
            self._lock = _claim(self._folder)
            _sweep(parent)
        except OSError as error:
            raise SandboxUnavailable(
                f"the folder for virtual machines cannot be made: {error.strerror}",
                where=str(parent),
                remedy="set SWARM_HOME to a folder that you may write",
            ) from None

    def make(self, name: str) -> Path:
        """A new folder."""
        folder = self._folder / name
        folder.mkdir()
        return folder

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)


def _claim(folder: Path) -> int:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(parent: Path) -> None:
    """Remove the folders of hosts that died: their locks are free."""
    for folder in parent.iterdir():
        if not (folder / _LOCK).exists():
            continue  # Just being made.
        with contextlib.suppress(OSError):
            lock = _claim(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
