"""Room in the write-ahead log, made before it is needed.

A commit that makes the log's file longer has to make the new length durable too, which costs the
file system a commit of its own: on ext4 two to three times what it costs to overwrite. SQLite
overwrites the log from its beginning once all of it is in the database, but a new log grows with
each commit until then. So it is made longer by many pages at once. What is added are zeros, which
SQLite takes for the log's end: a frame counts only if its salt and checksum are right
(https://sqlite.org/fileformat2.html, section 4.1).

To hold a descriptor of the log is safe: SQLite's locks are on the database and on the index of the
log, never on the log (https://sqlite.org/howtocorrupt.html, section 2.2, tells what closing one of
those would do).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from swarm.store.sqlite.connection import CHECKPOINT_PAGES

_FRAME_BYTES: Final = 4096 + 24
ENOUGH_BYTES: Final = CHECKPOINT_PAGES * _FRAME_BYTES
"""The log is not made longer than this: SQLite begins anew with it then."""
ADDED_BYTES: Final = 512 * 1024
_ZEROS: Final = bytes(ADDED_BYTES)


class LogSpace:
    """Watches the log of one database and makes it longer."""

    def __init__(self, database: Path) -> None:
        """``database`` is open, in WAL mode.

        Raises:
            OSError: the log cannot be opened.
        """
        path = database.with_name(f"{database.name}-wal")
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size

    def make(self) -> None:
        """Make room if the commits before this one had to make the log longer themselves.

        The caller holds the database's write lock: nobody else writes to the log. Another process
        that made room before is known by how much longer the log has become.
        """
        size = os.fstat(self._descriptor).st_size
        if 0 < size - self._size < ADDED_BYTES and size < ENOUGH_BYTES:
            with suppress(OSError):  # a full disk, which is the commit's to tell
                size += os.pwrite(self._descriptor, _ZEROS, size)
        self._size = size

    def close(self) -> None:
        os.close(self._descriptor)
