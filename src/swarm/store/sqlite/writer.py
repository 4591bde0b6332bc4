"""The writer thread: group commit.

Operations queue up; the thread takes what is there, runs it in one transaction, and tells all
callers at once. While it waits for the disk, the next batch gathers: the cost of making a commit
durable is shared by however many callers are waiting, and a lone caller waits for nobody.

An operation is a function of the connection, or a journal commit; neighbouring journal commits are
applied together. If one raises a SwarmError, its changes are undone and only its own caller hears
of it. If SQLite itself fails, the transaction is rolled back and each operation of the batch is
tried again in a transaction of its own, so that a bad one harms only itself. A caller is told of
success after the COMMIT that holds its operation, never before.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from swarm.kernel.errors import SwarmError
from swarm.store.sqlite.failures import Failures
from swarm.store.sqlite.journal import Commit, commit_all
from swarm.store.sqlite.turns import Turns

T = TypeVar("T")
Operation: TypeAlias = Callable[[sqlite3.Connection], T]
_Entry: TypeAlias = tuple[Operation[Any] | Commit, "asyncio.Future[Any]"]
_Outcome: TypeAlias = tuple["asyncio.Future[Any]", Any, SwarmError | None]

MAX_QUEUED_OPERATIONS = 4096
"""Operations that wait for the writer; more callers wait in turn before theirs is queued."""
MAX_BATCH_OPERATIONS = 512
"""Operations in one transaction; bounds how long other processes wait for the lock."""


@dataclass(frozen=True, slots=True)
class Session:
    """What the thread works with while the database is open."""

    connection: sqlite3.Connection
    turns: Turns

    def close(self) -> None:
        self.connection.close()
        self.turns.close()


_FAILURES = (sqlite3.Error, OverflowError, UnicodeError)
"""What executing a statement raises: the last two for values that SQLite cannot hold."""


class Writer:
    """The only connection of this process that writes; belongs to the running event loop."""

    def __init__(self, open_session: Callable[[], Session], failures: Failures) -> None:
        self._open_session = open_session
        self._failures = failures
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._slots = asyncio.Semaphore(MAX_QUEUED_OPERATIONS)
        self._pending: set[asyncio.Future[Any]] = set()
        self._open = False
        self._thread = threading.Thread(target=self._run, name="swarm-store-writer", daemon=True)
        self._ready = self._loop.create_future()

    async def start(self) -> None:
        """Open the connection. Raises SwarmError if that fails; the thread has then ended."""
        self._thread.start()
        try:
            await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            self._queue.put(None)
            raise
        self._open = True

    async def submit(self, operation: Operation[T]) -> T:
        """Run ``operation`` in a transaction and return its result once it is committed.

        If the caller is cancelled, the operation may still take effect.

        Raises:
            SwarmError: what the operation raised, or why the transaction failed.
        """
        result: T = await self._submit(operation)
        return result

    async def commit(self, commit: Commit) -> None:
        """Apply a journal commit, as :meth:`submit` does an operation.

        Raises:
            SwarmError: OwnershipLost, or why the transaction failed.
        """
        await self._submit(commit)

    async def close(self) -> None:
        """Finish what is queued and close the connection; nothing more is taken."""
        if self._open:
            self._open = False
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _submit(self, operation: Operation[Any] | Commit) -> Any:
        await self._slots.acquire()
        if not self._open:
            self._slots.release()
            raise self._failures.closed()
        future = self._loop.create_future()
        self._pending.add(future)
        self._queue.put((operation, future))
        return await future

    # On the event loop, called by the thread.

    def _resolve(self, outcomes: Sequence[_Outcome]) -> None:
        for future, value, error in outcomes:
            self._slots.release()
            self._pending.discard(future)
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _opened(self, error: SwarmError | None) -> None:
        if self._ready.done():
            return
        if error is None:
            self._ready.set_result(None)
        else:
            self._ready.set_exception(error)

    def _ended(self) -> None:
        """The thread is at its end: whoever still waits would wait for ever."""
        self._open = False
        self._opened(self._failures.stopped())
        self._resolve([(future, None, self._failures.stopped()) for future in tuple(self._pending)])

    # On the thread.

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self._tell(self._ended)

    def _serve(self) -> None:
        try:
            session = self._open_session()
        except SwarmError as error:
            self._tell(self._opened, error)
            return
        except (*_FAILURES, OSError) as error:
            self._tell(self._opened, self._failures.explain(error))
            return
        with closing(session):
            self._tell(self._opened, None)
            while batch := self._next_batch():
                self._tell(self._resolve, self._commit(session, batch))

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed, and with it everybody who could have waited.
            self._queue.put(None)

    def _next_batch(self) -> list[_Entry]:
        """Wait for operations; an empty list at the end."""
        batch: list[_Entry] = []
        entry = self._queue.get()
        while entry is not None:
            batch.append(entry)
            if len(batch) == MAX_BATCH_OPERATIONS or self._queue.empty():
                return batch
            entry = self._queue.get()
        self._queue.put(None)
        return batch

    def _commit(self, session: Session, batch: Sequence[_Entry]) -> list[_Outcome]:
        connection = session.connection
        begun = False
        try:
            session.turns.begin(connection)
            begun = True
            outcomes = _apply(connection, batch)
            connection.execute("COMMIT")
            session.turns.tell()
        except _FAILURES as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
                session.turns.tell()
            if begun and len(batch) > 1:
                return [outcome for entry in batch for outcome in self._commit(session, [entry])]
            return [(future, None, self._failures.explain(error)) for _, future in batch]
        return outcomes


def _apply(connection: sqlite3.Connection, batch: Sequence[_Entry]) -> list[_Outcome]:
    """Run a batch in order within the open transaction."""
    outcomes: list[_Outcome] = []
    commits: list[Commit] = []
    futures: list[asyncio.Future[Any]] = []

    def apply_commits() -> None:
        if commits:
            errors = commit_all(connection, commits)
            outcomes.extend(zip(futures, repeat(None), errors, strict=False))
            commits.clear()
            futures.clear()

    for operation, future in batch:
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
