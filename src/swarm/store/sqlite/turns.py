"""Taking turns: processes that write one database begin their transactions in fair order.

SQLite has no queue for its write lock. Its own waiting sleeps up to 100 ms between attempts, and a
busy process begins its next transaction within microseconds of the last: of two busy processes, one
did not get a single transaction in three seconds. So whoever wants to begin first takes a
turnstile, a lock on ``<database>.turn``, and keeps it until its transaction has begun. The process
that has just committed finds the turnstile taken and lets the waiting one go first.

Who has to wait sleeps until something happens: whoever leaves the turnstile or ends a transaction
reads a byte of the file, which inotify tells all who watch it, and so it tells when the file is
closed because its process was killed. A lock that blocks would do without, but could not be given
up after a time, and its holder may be stopped.

The turnstile is a courtesy. Nothing depends on it: programs that do not know it are held off by
SQLite's lock as ever, and a process that cannot get it for a while goes on without. What they do is
seen by looking again from time to time.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

TURN_SECONDS = 1.0
"""How long a process waits for the turnstile before it goes on without."""
LOOK_AGAIN_SECONDS = 0.01
"""How long a process sleeps when nobody tells it anything: programs that do not know the turnstile
hold the database's lock."""

_ACCESS: Final = 0x1
_CLOSE_WRITE: Final = 0x8
"""Events of inotify(7)."""
_EVENTS_BYTES: Final = 4096


class Turns:
    """Begins this process's transactions; used by one thread at a time, but for :meth:`tell`."""

    def __init__(self, database: Path, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        path = database.with_name(f"{database.name}.turn")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._descriptor).st_size == 0:
            os.pwrite(self._descriptor, b"\n", 0)
        self._events = _watch(path)
        self._poll = select.poll()
        if self._events is not None:
            self._poll.register(self._events, select.POLLIN)

    def try_begin(self, connection: sqlite3.Connection) -> bool:
        """Begin a transaction if that needs no waiting; whether it has begun.

        Raises:
            sqlite3.OperationalError: something else than a lock is in the way.
        """
        if not self._try_enter():
            return False
        try:
            return self._try_begin(connection, last=False)
        finally:
            self._leave()

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a transaction that may write. The connection's own busy timeout should be 0.

        Raises:
            sqlite3.OperationalError: the database stayed locked for the whole timeout.
        """
        start = time.monotonic()
        held = self._enter(start)
        try:
            while not self._try_begin(connection, last=_waited(start) >= self._timeout):
                self._wait()
        finally:
            if held:
                self._leave()

    def tell(self) -> None:
        """Wake who waits: the transaction has ended, or the turnstile is free."""
        with suppress(OSError):  # they look again by themselves
            os.pread(self._descriptor, 1, 0)

    def close(self) -> None:
        os.close(self._descriptor)
        if self._events is not None:
            os.close(self._events)

    def _enter(self, start: float) -> bool:
        while not self._try_enter():
            if _waited(start) >= TURN_SECONDS:
                return False
            self._wait()
        return True

    def _leave(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        self.tell()

    def _try_enter(self) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _try_begin(self, connection: sqlite3.Connection, *, last: bool) -> bool:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True

    def _wait(self) -> None:
        """Sleep until somebody tells something. What was told before is told at once: no attempt
        is missed, at the price of one in vain."""
        self._poll.poll(LOOK_AGAIN_SECONDS * 1000)
        if self._events is not None:
            with suppress(BlockingIOError):
                os.read(self._events, _EVENTS_BYTES)


def _waited(start: float) -> float:
    return time.monotonic() - start


def _watch(path: Path) -> int | None:
    """A descriptor that can be read when ``path`` is; None where the kernel has no more."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    if library.inotify_add_watch(descriptor, os.fsencode(path), _ACCESS | _CLOSE_WRITE) < 0:
        os.close(descriptor)
        return None
    return int(descriptor)
