"""Taking turns: processes that write one database begin their transactions in fair order.

SQLite has no queue for its write lock. Its own waiting sleeps up to 100 ms between attempts, and a
busy process begins its next transaction within microseconds of the last: of two busy processes, one
did not get a single transaction in three seconds. So whoever wants to begin first takes a
turnstile, a lock on ``<database>.turn``, and keeps it until its transaction has begun. The process
that has just committed finds the turnstile taken and lets the waiting one go first.

The turnstile is a courtesy. Nothing depends on it: programs that do not know it are held off by
SQLite's lock as ever, and a process that cannot get it for a while goes on without.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from pathlib import Path

TURN_SECONDS = 1.0
"""How long a process waits for the turnstile before it goes on without."""
_PAUSES = ((0.01, 0.0002), (1.0, 0.001), (float("inf"), 0.01))
"""Pauses between attempts: up to so many seconds of waiting, so many seconds each."""


class Turns:
    """Begins this process's transactions; used by its writer thread alone."""

    def __init__(self, database: Path, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        path = database.with_name(f"{database.name}.turn")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a transaction that may write. The connection's own busy timeout should be 0.

        Raises:
            sqlite3.OperationalError: the database stayed locked for the whole timeout.
        """
        start = time.monotonic()
        held = self._enter(start)
        try:
            while not self._try_begin(connection, last=self._waited(start) >= self._timeout):
                _pause(self._waited(start))
        finally:
            if held:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)

    def _enter(self, start: float) -> bool:
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                if self._waited(start) >= TURN_SECONDS:
                    return False
                _pause(self._waited(start))
            else:
                return True

    def _try_begin(self, connection: sqlite3.Connection, *, last: bool) -> bool:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True

    def _waited(self, start: float) -> float:
        return time.monotonic() - start


def _pause(waited: float) -> None:
    time.sleep(next(pause for limit, pause in _PAUSES if waited < limit))
