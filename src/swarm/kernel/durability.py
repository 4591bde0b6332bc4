"""Making folders durable.

A file that was synced may still be gone after a loss of power: its name is an entry of its folder,
which is on the disk once the folder itself was synced, and the folder's name in turn is an entry of
the one above (fsync(2)). Syncing takes a descriptor, and one for reading will do.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the entries of ``folder`` durable.

    Raises:
        OSError: it cannot be read, or the disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_ancestors(path: Path) -> None:
    """Make every folder that ``path`` is in durable, as far up as this user may read.

    For what everything else depends on, once in its life: any of the folders may have been made a
    moment ago, by whoever it was.

    Raises:
        OSError: the disk fails.
    """
    with suppress(PermissionError):
        for folder in path.absolute().parents:
            sync_folder(folder)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing above it, each of them durable.

    Raises:
        OSError: one cannot be made.
    """
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)
