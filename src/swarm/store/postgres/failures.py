"""What PostgreSQL and psycopg report, as Swarm's errors: what is wrong, where, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import psycopg

from swarm.kernel.errors import (
    ConflictError,
    DatabaseError,
    InvalidError,
    NotFoundError,
    SwarmError,
)

Failure: TypeAlias = psycopg.Error | OverflowError | UnicodeError
FAILURES = (psycopg.Error, OverflowError, UnicodeError)
"""What executing a statement raises."""

_TOLD: dict[str, tuple[str, str]] = {
    "42501": (
        "the user may not do that in the database",
        "make the user the owner of the database, or grant it CREATE and USAGE on its schema",
    ),
    "42": (
        "the database does not have the tables that this Swarm expects",
        "run `swarm db migrate`, or use the Swarm version that wrote it last",
    ),
    "53100": (
        "the server's disk is full",
        "free space on it; nothing was half-written (a shorter SWARM_RETENTION_DAYS keeps less)",
    ),
    "55P03": (
        "the database is locked: another process has held a lock for too long",
        "look into pg_stat_activity for who holds it, or raise SWARM_DATABASE_TIMEOUT_SECONDS",
    ),
    "25006": (
        "the database cannot be written: the server is a standby or read-only",
        "name the primary server in SWARM_DATABASE_URL (target_session_attrs=read-write)",
    ),
    "40": ("transactions kept getting in each other's way", "try again"),
}
"""By SQLSTATE or its class (a connection that was refused has none): https://www.postgresql.org/docs/current/errcodes-appendix.html"""
MAY_SUCCEED_AGAIN = ("40", "23505")
"""Failures that another transaction caused: this one may succeed when it is run again."""

CONCERN_ALL = ("25006", "28", "3D", "42", "53", "57", "58", "XX")
"""Failures of the server or the database, whatever it was told to do."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Turns the failures of one database into errors."""

    place: str

    def explain(self, error: Failure) -> SwarmError:
        """The error to raise for what psycopg raised."""
        if not isinstance(error, psycopg.Error):
            return _unstorable(error)
        state = error.sqlstate or ""
        if state.startswith("23"):
            return _broken_constraint(state, error)
        if state.startswith("22") or state == "54000" or isinstance(error, psycopg.DataError):
            return _unstorable(_first_line(error))
        for length in (5, 2):
            if told := _TOLD.get(state[:length]):
                return self._database(f"{told[0]} ({_first_line(error)})", told[1])
        if not state or state.startswith("08"):  # a pooler tells so that the server is away
            return self.unreachable(error)
        return self._database(
            f"the database failed ({state}: {_first_line(error)})",
            "try again; should it stay so, report it with this message",
        )

    def unreachable(self, error: Failure) -> DatabaseError:
        return self._database(
            f"the database cannot be reached: {_first_line(error)}",
            "check SWARM_DATABASE_URL (host, user, password, database), that the server runs and "
            "has connections left (max_connections), and that this machine may connect",
        )

    def in_doubt(self) -> DatabaseError:
        return self._database(
            "the connection was lost while a change was being committed, and the server cannot be "
            "asked whether it was",
            "look before you do it again: it may have been recorded",
        )

    def newer(self, found: int, known: int, oldest: int) -> DatabaseError:
        return self._database(
            f"the database is of version {found}, which needs a Swarm that knows version {oldest}; "
            f"this Swarm knows versions up to {known}",
            "stop this Swarm and install one as new as the one that upgraded the database; what "
            "it was driving is recorded, and goes on there",
        )

    def older(self, found: int, known: int) -> DatabaseError:
        return self._database(
            f"the database is of version {found}, and this Swarm needs version {known}",
            "run `swarm db migrate`: it says whether the older Swarms may go on meanwhile, or "
            "are to be stopped first",
        )

    def foreign(self) -> DatabaseError:
        return self._database(
            "the database holds tables, but they are not Swarm's",
            "name a database of its own in SWARM_DATABASE_URL",
        )

    def closed(self) -> DatabaseError:
        return self._database("the database was closed meanwhile", "open it again")

    def stopped(self) -> DatabaseError:
        return self._database(
            "the database's writer stopped unexpectedly; its thread's traceback is on stderr",
            "start Swarm again (finished work is kept), and report the traceback",
        )

    def _database(self, message: str, remedy: str) -> DatabaseError:
        return DatabaseError(message, where=self.place, remedy=remedy)


def may_succeed_again(error: Failure) -> bool:
    """Whether the transaction failed because of another one."""
    return _state(error).startswith(MAY_SUCCEED_AGAIN)


def concerns_all(error: Failure) -> bool:
    """Whether the server would refuse any other change just the same."""
    return _state(error).startswith(CONCERN_ALL)


def is_loss(error: Failure) -> bool:
    """Whether the connection is of no use any more: the server has ended it or is about to, or does
    not have the statements that the driver takes for prepared. The driver counts on one whose
    preparation the server skipped, in a pipeline that failed before it."""
    return _state(error).startswith(("57P", "08", "26000"))


def is_locked(error: Failure) -> bool:
    """Whether a lock was waited for in vain."""
    return _state(error) == "55P03"


def _state(error: Failure) -> str:
    return (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _unstorable(reason: object) -> InvalidError:
    return InvalidError(
        f"a value cannot be stored: {reason}",
        remedy="use whole numbers of at most 64 bits and well-formed Unicode text, "
        "and keys of at most 2,000 bytes",
    )


def _broken_constraint(state: str, error: psycopg.Error) -> SwarmError:
    if state == "23503":
        return NotFoundError(
            "the record refers to an agent, workflow or run that is not in the database",
            remedy="register or create what it refers to first",
        )
    return ConflictError(f"the record contradicts what is stored: {_first_line(error)}")
