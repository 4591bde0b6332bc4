"""Small file systems, to be filled."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "swarm-disk-"


@contextmanager
def small_disk(mib: int) -> Iterator[Path]:
    """A small file system of its own, which everybody may look into.

    Should this process be killed, it stays mounted until the next one is made.
    """
    unmount_left()
    folder = tempfile.mkdtemp(prefix=PREFIX)
    options = f"size={mib}m,mode=755"
    subprocess.run(("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder), check=True)
    lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(folder)
    finally:
        os.close(lock)
        unmount(folder)


def unmount_left() -> None:
    """Remove the file systems of those that were killed: nobody holds their locks."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with suppress(OSError):
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(lock)
            unmount(str(folder))


def unmount(folder: str) -> None:
    subprocess.run(("umount", "--lazy", folder), check=True)
    Path(folder).rmdir()
