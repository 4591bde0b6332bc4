"""The writer: group commit.

Operations gather; what is there goes into one transaction, and all its callers are told at once.
While it waits for the disk, the next batch gathers: the cost of making a commit durable is shared
by however many callers are waiting, and a lone caller waits for nobody. A caller is told of success
after the COMMIT that holds its operation, never before.

A thread of its own waits for the disk and for the locks of other processes. SQLite itself needs
microseconds for a row, but gives up the interpreter's lock at each statement, and to get it back
may take a thread longer than the statement. So a batch of few rows is applied on the event loop,
and the thread has only its COMMIT to execute; a larger one, and one that finds the database locked,
is the thread's as a whole.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias

from swarm.kernel.errors import SwarmError
from swarm.store.sql.journal import Commit
from swarm.store.sqlite.batches import (
    FAILURES,
    Entry,
    Operation,
    Outcome,
    Session,
    T,
    apply,
)
from swarm.store.sqlite.failures import Failures

MAX_QUEUED_OPERATIONS = 4096
"""Operations that wait for the writer; more callers wait in turn before theirs is queued."""
MAX_BATCH_OPERATIONS = 512
"""Operations in one transaction; bounds how long other processes wait for the lock."""
FEW_ROWS = 128
"""Rows that are written on the event loop: one or two milliseconds."""

_Job: TypeAlias = Callable[[], list[Outcome]]


class Writer:
    """The only connection of this process that writes; belongs to the running event loop."""

    def __init__(self, open_session: Callable[[], Session], failures: Failures) -> None:
        self._open_session = open_session
        self._failures = failures
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._slots = asyncio.Semaphore(MAX_QUEUED_OPERATIONS)
        self._waiting: deque[Entry] = deque()
        self._pending: set[asyncio.Future[Any]] = set()
        self._open = False
        self._is_busy = False
        """Whether a batch is under way, or about to be: there is one at a time."""
        self._thread = threading.Thread(target=self._run, name="swarm-store-writer", daemon=True)
        self._ready: asyncio.Future[Session] = self._loop.create_future()

    async def start(self) -> None:
        """Open the connection. Raises SwarmError if that fails; the thread has then ended."""
        self._thread.start()
        try:
            await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            self._jobs.put(None)
            raise
        self._open = True

    async def submit(self, operation: Operation[T], rows: int | None = None) -> T:
        """Run ``operation`` in a transaction and return its result once it is committed.

        If the caller is cancelled, the operation may still take effect.

        Args:
            operation: a function of the connection.
            rows: how many rows it writes, at most, all found by their key; None if that cannot be
                told.

        Raises:
            SwarmError: what the operation raised, or why the transaction failed.
        """
        result: T = await self._submit(operation, rows)
        return result

    async def commit(self, commit: Commit) -> None:
        """Apply a journal commit, as :meth:`submit` does an operation.

        Raises:
            SwarmError: OwnershipLost, or why the transaction failed.
        """
        await self._submit(commit, commit.rows)

    async def close(self) -> None:
        """Finish what is queued and close the connection; nothing more is taken."""
        if self._open:
            self._open = False
            if not self._is_busy:
                self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    # On the event loop.

    async def _submit(self, operation: Operation[Any] | Commit, rows: int | None) -> Any:
        await self._slots.acquire()
        if not self._open:
            self._slots.release()
            raise self._failures.closed()
        future = self._loop.create_future()
        self._pending.add(future)
        self._waiting.append(Entry(operation, future, rows))
        if not self._is_busy:
            self._begin_soon()
        return await future

    def _begin_soon(self) -> None:
        """Begin a batch when all that can run now has run, and perhaps submitted more."""
        self._is_busy = True
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        size = min(len(self._waiting), MAX_BATCH_OPERATIONS)
        batch = [self._waiting.popleft() for _ in range(size)]
        session = self._ready.result()
        job: _Job = partial(session.write, batch)
        if _is_small(batch) and session.try_begin():
            try:
                job = _applied(session, batch)
            except BaseException:
                self._open = False
                self._jobs.put(None)  # the thread closes the connection and tells everybody
                raise
        self._jobs.put(job)

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        self._resolve(outcomes)
        if self._waiting:
            self._begin_soon()
            return
        self._is_busy = False
        if not self._open:
            self._jobs.put(None)

    def _resolve(self, outcomes: Sequence[Outcome]) -> None:
        for future, value, error in outcomes:
            self._slots.release()
            self._pending.discard(future)
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _opened(self, session: Session | None, error: SwarmError | None) -> None:
        if self._ready.done():
            return
        if session is not None:
            self._ready.set_result(session)
        else:
            self._ready.set_exception(error or self._failures.stopped())

    def _ended(self) -> None:
        """The thread is at its end: whoever still waits would wait for ever."""
        self._open = False
        self._opened(None, None)
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
            self._tell(self._opened, None, error)
            return
        except (*FAILURES, OSError) as error:
            self._tell(self._opened, None, self._failures.explain(error))
            return
        with closing(session):
            self._tell(self._opened, session, None)
            while (job := self._jobs.get()) is not None:
                outcomes = job()
                session.turns.tell()
                self._tell(self._finish, outcomes)

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed, and with it everybody who could have waited.
            self._jobs.put(None)


def _is_small(batch: Sequence[Entry]) -> bool:
    rows = 0
    for entry in batch:
        if entry.rows is None:
            return False
        rows += entry.rows
    return rows <= FEW_ROWS


def _applied(session: Session, batch: Sequence[Entry]) -> _Job:
    """Apply a batch within the transaction that has begun; what is left for the thread."""
    try:
        return partial(session.commit, batch, apply(session.connection, batch))
    except FAILURES as error:
        return partial(session.undo, batch, error)
