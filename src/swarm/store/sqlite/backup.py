"""Copies of the database, made while it is in use.

SQLite's backup interface starts over when another connection writes in between two steps, unless
the source holds a snapshot: so the source reads within one transaction, and the copy is the
database as it was at the start. Meanwhile the write-ahead log keeps growing, as for any long read.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

from swarm.kernel.errors import ConflictError, DatabaseError
from swarm.kernel.settings import Settings
from swarm.store.sqlite.connection import connect, create_private
from swarm.store.sqlite.failures import Failures
from swarm.store.sqlite.readers import Readers

STEP_PAGES = 1000
"""Pages (of 4 KiB) copied before it is looked whether to go on."""
MAX_FAULTS = 100
"""Faults of a damaged database that are told."""


class DatabaseBackups:
    """Makes copies of one database file, and checks it."""

    def __init__(
        self, path: Path, settings: Settings, failures: Failures, readers: Readers
    ) -> None:
        self._path = path
        self._settings = settings
        self._failures = failures
        self._readers = readers

    async def check(self) -> list[str]:
        """See :meth:`swarm.store.ports.Backups.check`."""
        return await self._readers.run(faults)

    async def make(self, target: Path, *, replace: bool) -> int:
        """See :meth:`swarm.store.ports.Backups.back_up`. If it is cancelled, the copy goes."""
        stopped = threading.Event()
        copying = asyncio.ensure_future(asyncio.to_thread(self._make, target, replace, stopped))
        try:
            return await asyncio.shield(copying)
        except asyncio.CancelledError:
            stopped.set()
            await asyncio.wait([copying])
            raise

    def _make(self, target: Path, replace: bool, stopped: threading.Event) -> int:
        self._check(target, replace)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            create_private(unfinished)
            self._copy(unfinished, stopped)
            size = unfinished.stat().st_size
            self._put_in_place(unfinished, target, replace)
        except sqlite3.Error as error:
            raise self._failures.explain(error) from None
        except OSError as error:
            raise _unwritable(target, error) from None
        finally:
            with suppress(FileNotFoundError):
                unfinished.unlink()
        return size

    def _check(self, target: Path, replace: bool) -> None:
        own = {self._path, *(self._path.with_name(self._path.name + end) for end in _BESIDE)}
        if target.resolve() in {path.resolve() for path in own}:
            raise ConflictError(
                "the copy cannot take the place of the database itself",
                where=str(target),
                remedy="name another file",
            )
        if os.path.lexists(target) and not replace:
            raise _occupied(target)

    def _copy(self, unfinished: Path, stopped: threading.Event) -> None:
        def go_on(_status: int, _remaining: int, _total: int) -> None:
            if stopped.is_set():
                raise sqlite3.OperationalError("the backup was stopped")

        with (
            closing(connect(self._path, self._settings, query_only=True)) as source,
            closing(sqlite3.connect(unfinished, isolation_level=None)) as copy,
        ):
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes the snapshot
            source.backup(copy, pages=STEP_PAGES, progress=go_on, sleep=0)
            source.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE")
            problems = [text for (text,) in copy.execute("PRAGMA integrity_check(5)")]
            if problems != ["ok"]:
                raise DatabaseError(
                    f"the copy is damaged, and so is the database: {'; '.join(problems)}",
                    where=str(self._path),
                    remedy="put back an older backup; `sqlite3 <file> .recover` saves what can be",
                )

    def _put_in_place(self, unfinished: Path, target: Path, replace: bool) -> None:
        _sync(unfinished)
        if replace:
            unfinished.replace(target)
        else:
            try:
                os.link(unfinished, target)  # a rename would replace what came meanwhile
            except FileExistsError:
                raise _occupied(target) from None
        _sync(target.parent)


_BESIDE = ("-wal", "-shm", ".turn")
"""What lies beside the database under its name."""


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _occupied(target: Path) -> ConflictError:
    return ConflictError(
        "there is such a file already",
        where=str(target),
        remedy="name another file, or say that it may be replaced",
    )


def _unwritable(target: Path, error: OSError) -> DatabaseError:
    return DatabaseError(
        f"the backup cannot be written: {error.strerror or error}",
        where=str(target),
        remedy="check that its folder is there, that you may write it and that its disk has space",
    )


def faults(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the file, its indexes and its references; see sqlite.org/pragma.html."""
    found = [
        text
        for (text,) in connection.execute(f"PRAGMA integrity_check({MAX_FAULTS})")
        if text != "ok"
    ]
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        found.append(f"row {row} of {table} refers to a row of {parent} that is not there")
        if len(found) >= MAX_FAULTS:
            break
    return found
