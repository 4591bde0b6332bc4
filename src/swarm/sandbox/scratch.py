"""Folders for handlers that no sandbox gives one to; what a killed host left is cleared away.

A host keeps its folders in one of its own, with a lock on it for as long as it lives. Whoever needs
such a folder first removes those whose lock is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

PREFIX: Final = "swarm-scratch-"
_LOCK: Final = "lock"


class Scratch:
    """One host's folders, in the system's folder for temporary files."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock = -1

    def make(self) -> Path:
        """A new, empty folder.

        Raises:
            OSError: there is no place for it.
        """
        if self._folder is None:
            _clear()
            self._folder, self._lock = _claimed()
        return Path(tempfile.mkdtemp(dir=self._folder))

    def close(self) -> None:
        """Remove all of them; safe to call twice, and new ones may be made afterwards."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._folder, self._lock = None, -1


def _claimed() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        lock = os.open(folder / _LOCK, flags, 0o600)
        # Before it is locked, somebody else may take it for one that was left.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / _LOCK).exists():
                return folder, lock
        os.close(lock)


def _clear() -> None:
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        # Somebody else's, or just being made or removed.
        with contextlib.suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
