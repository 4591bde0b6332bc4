"""What SQLite reports, as Swarm's errors: what is wrong, in which file, what to do about it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from swarm.kernel.errors import (
    ConflictError,
    DatabaseError,
    InvalidError,
    NotFoundError,
    SwarmError,
)

SCHEMA_FAULT = "the database does not have the tables that this Swarm expects"


@dataclass(frozen=True, slots=True)
class Failures:
    """Turns the failures of one database file into errors."""

    path: Path
    timeout_seconds: float

    def explain(self, error: sqlite3.Error | OverflowError | UnicodeError | OSError) -> SwarmError:
        """The error to raise for what sqlite3 raised. The codes: https://sqlite.org/rescode.html"""
        if isinstance(error, OSError):
            return DatabaseError(
                f"the database's folder cannot be used: {error.strerror or error}",
                where=str(error.filename or self.path),
                remedy="check that you may write it and that its disk has space left",
            )
        if not isinstance(error, sqlite3.Error):
            return InvalidError(
                f"a value cannot be stored: {error}",
                remedy="use whole numbers of at most 64 bits and well-formed Unicode text",
            )
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return self._database(f"the database cannot be used: {error}", "report this as a bug")
        if code == sqlite3.SQLITE_READONLY_DBMOVED:
            return self._database(
                "the file was moved or deleted while it was open",
                "start Swarm again; put the file back first if it holds what you need",
            )
        if code & 0xFF == sqlite3.SQLITE_CONSTRAINT:
            return _broken_constraint(code, error)
        return self._from_code(code & 0xFF, error)

    def _from_code(self, code: int, error: sqlite3.Error) -> DatabaseError:
        match code:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return self._database(
                    "the database is locked: another process has held its lock for more than "
                    f"{self.timeout_seconds:g} s",
                    "close whatever else has it open for writing (an sqlite3 shell, a backup), "
                    "or raise SWARM_DATABASE_TIMEOUT_SECONDS",
                )
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                return self.read_only(self.path)
            case sqlite3.SQLITE_FULL:
                return self._database(
                    "the database cannot grow: its disk is full or a size limit is reached",
                    "free disk space (`swarm runs list` shows what is kept; a shorter "
                    "SWARM_RETENTION_DAYS keeps less), then try again; nothing was half-written",
                )
            case sqlite3.SQLITE_IOERR:
                return self._database(
                    f"reading or writing the database failed ({error.sqlite_errorname}: {error})",
                    "check that the disk has space left and is healthy, then try again",
                )
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return self._database(
                    f"the file is damaged or no SQLite database ({error})",
                    f"move it away, and put back a copy of yours or the newest "
                    f"{self.path.name}.backup-*; without one a new database is made",
                )
            case sqlite3.SQLITE_CANTOPEN:
                return self._database(
                    "the database cannot be opened",
                    "check that the path is right, and that you may write the file and its folder",
                )
            case sqlite3.SQLITE_ERROR:
                return self._database(
                    f"{SCHEMA_FAULT}: {error}",
                    "use the Swarm version that wrote it last, or restore a backup",
                )
            case _:
                return self._database(
                    f"the database failed ({error.sqlite_errorname}: {error})",
                    "try again; should it stay so, report it with this message",
                )

    def read_only(self, what: Path) -> DatabaseError:
        return DatabaseError(
            "the database cannot be written: the file, its folder or its disk is read-only",
            where=str(what),
            remedy="make both the file and its folder writable for this user, "
            "or set SWARM_HOME to a folder that is",
        )

    def missing_folder(self, folder: Path) -> DatabaseError:
        return DatabaseError(
            "the database's folder cannot be opened",
            where=str(folder),
            remedy="make the folder, or set SWARM_HOME to one that you may read and write",
        )

    def newer(self, found: int, known: int, oldest: int) -> DatabaseError:
        return self._database(
            f"the database is of version {found}, which needs a Swarm that knows version {oldest}; "
            f"this Swarm knows versions up to {known}",
            f"use a newer Swarm, or put back a backup ({self.path.name}.backup-*) of version "
            f"{known} or older",
        )

    def foreign(self) -> DatabaseError:
        return self._database(
            "the file is an SQLite database, but not one of Swarm's",
            "move it away, or set SWARM_HOME to another folder",
        )

    def closed(self) -> DatabaseError:
        return self._database("the database was closed meanwhile", "open it again")

    def stopped(self) -> DatabaseError:
        return self._database(
            "the database's writer stopped unexpectedly; its thread's traceback is on stderr",
            "start Swarm again (finished work is kept), and report the traceback",
        )

    def _database(self, message: str, remedy: str) -> DatabaseError:
        return DatabaseError(message, where=str(self.path), remedy=remedy)


def _broken_constraint(code: int, error: sqlite3.Error) -> SwarmError:
    if code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return NotFoundError(
            "the record refers to an agent, workflow or run that is not in the database",
            remedy="register or create what it refers to first",
        )
    return ConflictError(f"the record contradicts what is stored: {error}")
