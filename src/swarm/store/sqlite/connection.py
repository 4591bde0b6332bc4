"""Opening connections to the database file."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from swarm.kernel.settings import MIB, Settings

CACHED_STATEMENTS = 256
"""Prepared statements that a connection keeps."""
CACHE_KIB = 16 * 1024
"""Page cache of a connection, in KiB."""
JOURNAL_LIMIT_BYTES = 64 * MIB
"""The write-ahead log is cut back to this size once its pages are in the database file."""
CHECKPOINT_PAGES = 2000
"""The write-ahead log goes into the database file after this many pages (of 4 KiB)."""


def connect(path: Path, settings: Settings, *, query_only: bool = False) -> sqlite3.Connection:
    """Open a connection without touching the file's content.

    It may be used from one thread at a time, and waits ``settings.database_timeout_seconds``
    for locks of others. Transactions are begun and ended by hand.

    Raises:
        sqlite3.Error: the file cannot be opened or is no database.
    """
    connection = sqlite3.connect(
        path,
        timeout=settings.database_timeout_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=CACHED_STATEMENTS,
    )
    try:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        # SQLite notes how to undo each statement of many rows; that is a temporary file otherwise.
        connection.execute("PRAGMA temp_store = MEMORY")
        if query_only:
            connection.execute("PRAGMA query_only = 1")
        else:
            connection.execute(f"PRAGMA synchronous = {settings.durability.upper()}")
            connection.execute("PRAGMA foreign_keys = 1")
            connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def create_private(path: Path) -> None:
    """Make an empty file that only its owner may read; leave one that is there alone.

    A file that exists is never opened here: closing it would drop the locks that SQLite holds on
    it for this process (https://sqlite.org/howtocorrupt.html, section 2.2).

    Raises:
        OSError: it cannot be made.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
