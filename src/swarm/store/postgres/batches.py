"""Batches of operations, each batch one transaction on a writing connection.

Statements are pipelined: a batch costs two round trips, whatever is in it, and one more for each
answer that an operation needs before it can go on. The journal commits of a batch are applied
first, together; an operation that comes after a commit of its run still comes after it.

If an operation raises a SwarmError, or the server refuses something, the transaction is rolled back
and run again without it, or in halves: a bad operation harms only itself. What another transaction
was in the way of (a deadlock, a key that was taken meanwhile) is run again a few times.

If the connection is lost, what was not committed is run again on a new one. Whether a COMMIT in
doubt happened, the server is asked (:mod:`swarm.store.postgres.doubt`): nothing is done twice, and
nothing is reported that did not happen.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

import psycopg

from swarm.kernel.errors import SwarmError
from swarm.kernel.settings import Settings
from swarm.store.postgres.companion import Companion
from swarm.store.postgres.connection import (
    NO_COMPILING,
    RECONNECT_SECONDS,
    PostgresConnection,
    Raw,
    connect,
    connect_patiently,
    is_pooled,
)
from swarm.store.postgres.doubt import Mark, Marks, forget_old_marks, was_committed
from swarm.store.postgres.failures import (
    FAILURES,
    Failure,
    Failures,
    concerns_all,
    is_locked,
    is_loss,
    may_succeed_again,
)
from swarm.store.postgres.journal import commit_all
from swarm.store.postgres.migration import MIGRATIONS, check_version
from swarm.store.records import RunRecord
from swarm.store.sql.connection import Connection
from swarm.store.sql.journal import Commit

T = TypeVar("T")
Operation: TypeAlias = Callable[[Connection], T]
Outcome: TypeAlias = tuple["asyncio.Future[Any]", Any, SwarmError | None]

ATTEMPTS = 5
"""How often an operation is run that other transactions are in the way of."""
PAUSED_SECONDS = 3.0
"""A process that has said nothing for so long within a transaction has been stopped, or cut off. If
another waits for its locks, the server is told to end its connection: what it was about to do is
undone, and it does it again, if it still may, should it go on."""
AFTER_WAITING_SECONDS = 0.1
"""How long an operation waits for a lock whose batch has waited already."""
_NAME: Final = "swarm writer"
_END_PAUSED: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND usename = current_user "
    "AND starts_with(application_name, $1) AND pid <> pg_backend_pid() "
    "AND wait_event = 'ClientRead' AND xact_start < clock_timestamp() - $2 * interval '1 second'"
)
_END_PREDECESSOR: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
)


class Later(Protocol):
    """A result that is read when all operations of the batch have been sent."""

    def read(self) -> Any: ...


class Recorded:
    """A run that an operation has recorded: companions hear of all those of a batch at once."""

    __slots__ = ("run",)

    def __init__(self, run: RunRecord) -> None:
        self.run = run

    def read(self) -> RunRecord:
        return self.run


class Entry(NamedTuple):
    """An operation and who waits for it."""

    operation: Operation[Any] | Commit
    future: asyncio.Future[Any]
    run_id: str | None
    """The run whose operations stay in order with this one."""
    is_durable: bool = True
    """Whether who waits for it is to be told only when it is on the disk."""


class _Refused(Exception):
    """An operation of the batch raised a SwarmError."""

    def __init__(self, entry: Entry, error: SwarmError) -> None:
        super().__init__(str(error))
        self.entry = entry
        self.error = error


class _Lost(Exception):
    """The connection is gone; ``committing`` is the transaction whose COMMIT is in doubt."""

    def __init__(self, error: Failure, committing: Mark | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.committing = committing


class Session:
    """A connection that writes, opened when it is needed; used by one thread."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        failures: Failures,
        companions: Sequence[Companion] = (),
        known: int = len(MIGRATIONS),
    ) -> None:
        self._url = url
        self._settings = settings
        self._failures = failures
        self._companions = companions
        self._known = known
        self._raw: Raw | None = None
        self._name = ""
        self._marks = Marks()
        self._lock_seconds = settings.database_timeout_seconds

    def close(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def write(self, batch: Sequence[Entry]) -> list[Outcome]:
        """Run a batch; what it says was done is durable."""
        return self._write(batch, self._lock_seconds)

    def _write(self, batch: Sequence[Entry], lock_seconds: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        remaining = list(batch)
        attempts = 0
        waited = min(PAUSED_SECONDS, lock_seconds)
        while remaining:
            attempts += 1
            try:
                return outcomes + self._transaction(remaining, min(PAUSED_SECONDS, lock_seconds))
            except _Refused as refusal:
                outcomes.append((refusal.entry.future, None, refusal.error))
                remaining.remove(refusal.entry)
                attempts = 0
            except SwarmError as error:
                return outcomes + _all_failed(remaining, error)
            except FAILURES as error:
                if is_locked(error) and waited < lock_seconds:
                    waited += PAUSED_SECONDS
                    attempts = 0
                    self._end_paused()
                    continue
                if len(remaining) > 1 and not concerns_all(error):
                    return outcomes + self._write_apart(remaining, error)
                if attempts == ATTEMPTS or not may_succeed_again(error):
                    return outcomes + _all_failed(remaining, self._failures.explain(error))
        return outcomes

    def _write_apart(self, batch: Sequence[Entry], error: Failure) -> list[Outcome]:
        """Run a batch in which one operation harms the others, in parts."""
        if is_locked(error):  # all of them have waited; those that are in nobody's way need not
            alone = [self._write([entry], AFTER_WAITING_SECONDS) for entry in batch]
            return [outcome for outcomes in alone for outcome in outcomes]
        half = len(batch) // 2
        return self.write(batch[:half]) + self.write(batch[half:])

    def _end_paused(self) -> None:
        """End connections of writers that keep others waiting and say nothing themselves."""
        with suppress(SwarmError):  # the batch will meet what is wrong
            raw = self._connected()
            try:
                raw.execute(_END_PAUSED, [_NAME, PAUSED_SECONDS])
                raw.commit()
            except psycopg.Error:
                self._roll_back(raw)

    def _transaction(self, batch: Sequence[Entry], lock_seconds: float) -> list[Outcome]:
        """One transaction, begun again on another connection where one is lost.

        Raises:
            _Refused: an operation raised a SwarmError; nothing was changed.
            SwarmError: the server cannot be reached.
            psycopg.Error: the server refused something; nothing was changed.
        """
        losses = 0
        while True:
            raw = self._connected()
            outcomes: list[Outcome] = []
            try:
                self._attempt(raw, batch, outcomes, lock_seconds)
                return outcomes
            except _Lost as loss:
                raw.close()
                self._raw = None
                if loss.committing is not None and self._was_committed(loss.committing):
                    return outcomes
                losses += 1
                if losses == ATTEMPTS:  # it is what is sent that breaks it
                    raise self._failures.unreachable(loss.error) from None

    def _attempt(
        self, raw: Raw, batch: Sequence[Entry], outcomes: list[Outcome], lock_seconds: float
    ) -> None:
        transaction: Mark | None = None
        committing = False
        try:
            with raw.pipeline() as pipeline:
                connection = PostgresConnection(raw, pipeline)
                begun = self._marks.begin(connection, lock_seconds)
                is_durable = any(entry.is_durable for entry in batch)
                if self._settings.durability == "normal" or not is_durable:
                    connection.execute("SET LOCAL synchronous_commit = off")
                outcomes += self._apply(connection, batch)
                transaction = begun.read()
                # Errors of statements whose answers nobody asked for come before the COMMIT.
                committing = True
                raw.commit()
        except FAILURES as error:
            in_doubt = transaction if committing else None
            if not self._roll_back(raw) or is_loss(error):
                raise _Lost(error, in_doubt) from None
            # The server may have ended the connection after it had committed, in the same breath.
            if in_doubt is None or not self._was_committed(in_doubt):
                outcomes.clear()
                raise
        except BaseException:
            outcomes.clear()
            self._roll_back(raw)
            raise

    def _apply(self, connection: PostgresConnection, batch: Sequence[Entry]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        commits = [entry for entry in batch if isinstance(entry.operation, Commit)]
        if commits:
            errors = commit_all(
                connection,
                [entry.operation for entry in commits if isinstance(entry.operation, Commit)],
                self._companions,
            )
            outcomes += [
                (entry.future, None, error) for entry, error in zip(commits, errors, strict=True)
            ]
        sent: list[tuple[Entry, Any]] = []
        for entry in batch:
            if isinstance(entry.operation, Commit):
                continue
            try:
                sent.append((entry, entry.operation(connection)))
            except SwarmError as error:
                raise _Refused(entry, error) from None
        if new := [value.run for _, value in sent if isinstance(value, Recorded)]:
            for companion in self._companions:
                companion.created(connection, new)
        for entry, value in sent:
            result = value.read() if hasattr(value, "read") else value
            outcomes.append((entry.future, result, None))
        return outcomes

    def _roll_back(self, raw: Raw) -> bool:
        """Undo what was not committed; whether the connection can be used further."""
        with suppress(psycopg.Error):
            raw.rollback()
            if not raw.closed:
                return True
        raw.close()
        self._raw = None
        return False

    def _connected(self) -> Raw:
        """The connection, opened again and again for a time where the server is away.

        Raises:
            DatabaseError: it stays away, or was upgraded beyond what this Swarm knows.
        """
        if self._raw is not None and not self._raw.closed:
            return self._raw
        seconds = self._settings.database_reconnect_seconds
        try:
            self._raw = connect_patiently(self._open, seconds)
        except psycopg.OperationalError as error:
            raise self._failures.explain(error) from None
        return self._raw

    def _open(self) -> Raw:
        self._marks = Marks()
        raw = connect(self._url, self._settings, writes=True, name=_NAME)
        try:
            if is_pooled(raw):
                raw.prepare_threshold = None
            else:
                if self._name:
                    # What the lost connection left may hold locks until the server finds it dead.
                    raw.execute(_END_PREDECESSOR, [self._name])
                self._name = f"{_NAME} {uuid.uuid4().hex}"
                raw.execute("SELECT set_config('application_name', $1, false)", [self._name])
                # Plans are made once and kept: one made for an empty table must serve a full one.
                raw.execute("SET enable_seqscan = off")
                raw.execute(NO_COMPILING)
                raw.execute("SET plan_cache_mode = force_generic_plan")
            check_version(raw, self._failures, self._known)
            forget_old_marks(raw)
            raw.commit()
        except BaseException:
            raw.close()
            raise
        return raw

    def _was_committed(self, transaction: Mark) -> bool:
        """Whether a transaction was whose COMMIT nobody answered.

        Raises:
            DatabaseError: the server cannot be asked.
        """
        deadline = time.monotonic() + self._settings.database_reconnect_seconds
        pause, longest = RECONNECT_SECONDS
        while time.monotonic() < deadline:
            raw = self._connected()
            fate = None
            try:
                fate = was_committed(raw, transaction)
            except psycopg.Error:
                self._roll_back(raw)
            if fate is not None:
                return fate
            time.sleep(pause)
            pause = min(2 * pause, longest)
        raise self._failures.in_doubt()


def _all_failed(batch: Sequence[Entry], error: SwarmError) -> list[Outcome]:
    return [(entry.future, None, error) for entry in batch]
