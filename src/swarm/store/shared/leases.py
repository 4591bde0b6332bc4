"""Locks on names, by files that vanish again.

A lock file that nobody needs is deleted by whoever holds it alone. So whoever gets a lock looks
whether the file is still the one of its name, and begins anew if it is not.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Leases:
    """Locks on names, in a folder. The kernel lets go of them when a process dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def shared(self, name: str) -> Iterator[None]:
        """Hold a name together with others.

        Raises:
            OSError: the file cannot be made.
        """
        descriptor = self._locked(name, fcntl.LOCK_SH)
        if descriptor is None:
            raise AssertionError("a lock that is waited for comes")
        try:
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def alone(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Whether nobody else holds a name until the end; waits for that if told to.

        Raises:
            OSError: the file cannot be made.
        """
        descriptor = self._locked(name, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if descriptor is None:
            yield False
            return
        try:
            yield True
        finally:
            (self._folder / name).unlink(missing_ok=True)
            os.close(descriptor)

    def _locked(self, name: str, how: int) -> int | None:
        path = self._folder / name
        while True:
            descriptor = self._opened(path)
            try:
                fcntl.flock(descriptor, how)
                if _is_still(path, descriptor):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _opened(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            return os.open(path, flags, 0o600)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
