"""Batches of operations, each batch one transaction on the writing connection.

An operation is a function of the connection, or a journal commit; neighbouring journal commits are
applied together. If one raises a SwarmError, its changes are undone and only its own caller hears
of it. If SQLite itself fails, the transaction is rolled back and each operation of the batch is
tried again in a transaction of its own, so that a bad one harms only itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple, TypeAlias, TypeVar

from swarm.kernel.errors import SwarmError
from swarm.store.sql.journal import Commit, commit_all
from swarm.store.sqlite.failures import Failures
from swarm.store.sqlite.log_space import LogSpace
from swarm.store.sqlite.migration import is_too_new
from swarm.store.sqlite.turns import Turns

T = TypeVar("T")
Operation: TypeAlias = Callable[[sqlite3.Connection], T]
Outcome: TypeAlias = tuple["asyncio.Future[Any]", Any, SwarmError | None]

Failure: TypeAlias = sqlite3.Error | OverflowError | UnicodeError
FAILURES = (sqlite3.Error, OverflowError, UnicodeError)
"""What executing a statement raises: the last two for values that SQLite cannot hold."""


class Entry(NamedTuple):
    """An operation and who waits for it."""

    operation: Operation[Any] | Commit
    future: asyncio.Future[Any]
    rows: int | None
    """How many rows it writes, at most; None if that cannot be told."""


@dataclass(frozen=True, slots=True)
class Session:
    """The open connection that writes; used by one thread at a time."""

    connection: sqlite3.Connection
    turns: Turns
    failures: Failures
    log_space: LogSpace | None
    """None where no commit waits for the disk."""
    known: int
    """The version of the schema that this Swarm speaks."""

    def close(self) -> None:
        self.connection.close()
        self.turns.close()
        if self.log_space is not None:
            self.log_space.close()

    def try_begin(self) -> bool:
        """Begin a transaction if nobody is in the way; whether it has begun."""
        try:
            if not self.turns.try_begin(self.connection):
                return False
            if is_too_new(self.connection, self.known):
                self._roll_back()
                return False
        except FAILURES:
            return False  # :meth:`write` meets it again, and tells it
        return True

    def write(self, batch: Sequence[Entry]) -> list[Outcome]:
        """Run a batch, waiting for whatever is in the way."""
        try:
            self.turns.begin(self.connection)
            if is_too_new(self.connection, self.known):
                return self._outdated(batch)
        except FAILURES as error:
            return self._failed(batch, error)
        try:
            outcomes = apply(self.connection, batch)
        except FAILURES as error:
            return self.undo(batch, error)
        return self.commit(batch, outcomes)

    def commit(self, batch: Sequence[Entry], outcomes: list[Outcome]) -> list[Outcome]:
        """End a transaction in which ``batch`` was applied: it is durable when this returns."""
        if self.log_space is not None:
            self.log_space.make()
        try:
            self.connection.execute("COMMIT")
        except FAILURES as error:
            return self.undo(batch, error)
        return outcomes

    def undo(self, batch: Sequence[Entry], error: Failure) -> list[Outcome]:
        """Roll back, and run each operation alone if there are several."""
        self._roll_back()
        if len(batch) == 1:
            return self._failed(batch, error)
        return [outcome for entry in batch for outcome in self.write([entry])]

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
            self.turns.tell()

    def _outdated(self, batch: Sequence[Entry]) -> list[Outcome]:
        """The database was upgraded while this Swarm had it open: it may write no more."""
        oldest, version = self.connection.execute(
            "SELECT user_version, max(version) FROM pragma_user_version, schema_migrations"
        ).fetchone()
        self._roll_back()
        error = self.failures.newer(int(version), self.known, int(oldest))
        return [(entry.future, None, error) for entry in batch]

    def _failed(self, batch: Sequence[Entry], error: Failure) -> list[Outcome]:
        return [(entry.future, None, self.failures.explain(error)) for entry in batch]


def apply(connection: sqlite3.Connection, batch: Sequence[Entry]) -> list[Outcome]:
    """Run a batch in order within the open transaction."""
    outcomes: list[Outcome] = []
    commits: list[Commit] = []
    futures: list[asyncio.Future[Any]] = []

    def apply_commits() -> None:
        if commits:
            errors = commit_all(connection, commits)
            outcomes.extend(zip(futures, repeat(None), errors, strict=False))
            commits.clear()
            futures.clear()

    for operation, future, _ in batch:
        if isinstance(operation, Commit):
            commits.append(operation)
            futures.append(future)
            continue
        apply_commits()
        connection.execute("SAVEPOINT operation")
        try:
            outcomes.append((future, operation(connection), None))
        except SwarmError as error:
            connection.execute("ROLLBACK TO operation")
            outcomes.append((future, None, error))
        connection.execute("RELEASE operation")
    apply_commits()
    return outcomes
