"""The writers: group commit, on several connections.

Operations gather while a batch is under way; what is there goes into one transaction. A few
connections write side by side, each on a thread of its own, so that one batch waits for the
server's disk while another is applied. Operations on one run stay in the order in which they came:
a batch takes none of a run that another batch is at.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from swarm.store.postgres.batches import Entry, Operation, Outcome, Session, T
from swarm.store.postgres.failures import Failures
from swarm.store.sql.journal import Commit

MAX_QUEUED_OPERATIONS = 4096
"""Operations that wait for a writer; more callers wait in turn before theirs is queued."""
MAX_BATCH_OPERATIONS = 512
"""Operations in one transaction; bounds how long its locks are held."""


class Writer:
    """All connections of this process that write; belongs to the running event loop."""

    def __init__(self, sessions: Sequence[Session], failures: Failures) -> None:
        self._sessions = sessions
        self._failures = failures
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[list[Entry] | None] = SimpleQueue()
        self._slots = asyncio.Semaphore(MAX_QUEUED_OPERATIONS)
        self._waiting: deque[Entry] = deque()
        self._pending: set[asyncio.Future[Any]] = set()
        self._under_way: Counter[str] = Counter()
        """Runs that batches under way are at."""
        self._idle = len(sessions)
        self._is_open = True
        self._scheduled = False
        self._threads = [
            threading.Thread(
                target=self._run, args=(session,), name=f"swarm-store-writer-{number}", daemon=True
            )
            for number, session in enumerate(sessions)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(
        self,
        operation: Operation[T],
        rows: int | None = None,
        run_id: str | None = None,
        *,
        durable: bool = True,
    ) -> T:
        """Run ``operation`` in a transaction and return its result once it is committed.

        It may be run several times, of which one is committed. If the caller is cancelled, it may
        still take effect.

        Args:
            operation: a function of the connection.
            rows: how many rows it writes; of no matter here.
            run_id: the run before whose later operations it is to be done.
            durable: whether what it did must have reached the disk.

        Raises:
            SwarmError: what the operation raised, or why the transaction failed.
        """
        result: T = await self._submit(operation, run_id, durable=durable)
        return result

    async def commit(self, commit: Commit) -> None:
        """Apply a journal commit, as :meth:`submit` does an operation.

        Raises:
            SwarmError: OwnershipLost, or why the transaction failed.
        """
        await self._submit(commit, commit.run_id)

    async def close(self) -> None:
        """Finish what is queued and close the connections; nothing more is taken."""
        self._is_open = False
        self._end_if_done()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    # On the event loop.

    async def _submit(
        self, operation: Operation[Any] | Commit, run_id: str | None, *, durable: bool = True
    ) -> Any:
        await self._slots.acquire()
        if not self._is_open:
            self._slots.release()
            raise self._failures.closed()
        future = self._loop.create_future()
        self._pending.add(future)
        self._waiting.append(Entry(operation, future, run_id, durable))
        self._begin_soon()
        return await future

    def _begin_soon(self) -> None:
        """Begin a batch when all that can run now has run, and perhaps submitted more."""
        if self._idle and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        if not self._idle or not (batch := self._take()):
            return
        self._under_way.update(entry.run_id for entry in batch if entry.run_id is not None)
        self._idle -= 1
        self._jobs.put(batch)
        if self._waiting:
            self._begin_soon()

    def _take(self) -> list[Entry]:
        """The operations that are next, without those on runs that another batch is at."""
        if not self._under_way:
            size = min(len(self._waiting), MAX_BATCH_OPERATIONS)
            return [self._waiting.popleft() for _ in range(size)]
        batch: list[Entry] = []
        left: deque[Entry] = deque()
        while self._waiting and len(batch) < MAX_BATCH_OPERATIONS:
            entry = self._waiting.popleft()
            (left if entry.run_id in self._under_way else batch).append(entry)
        left.extend(self._waiting)
        self._waiting = left
        return batch

    def _finish(self, batch: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        self._idle += 1
        for entry in batch:
            if entry.run_id is not None:
                self._under_way[entry.run_id] -= 1
                if not self._under_way[entry.run_id]:
                    del self._under_way[entry.run_id]
        self._resolve(outcomes)
        if self._waiting:
            self._begin_soon()
        self._end_if_done()

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

    def _end_if_done(self) -> None:
        if not self._is_open and not self._pending:
            for _ in self._threads:
                self._jobs.put(None)

    def _ended(self) -> None:
        """A thread is at its end before its time: whoever waits might wait for ever."""
        if self._pending:
            self._is_open = False
            stopped = self._failures.stopped()
            self._resolve([(future, None, stopped) for future in tuple(self._pending)])
            self._end_if_done()

    # On the threads.

    def _run(self, session: Session) -> None:
        try:
            while (batch := self._jobs.get()) is not None:
                self._tell(self._finish, batch, session.write(batch))
        finally:
            session.close()
            self._tell(self._ended)

    def _tell(self, callback: Any, *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed, and with it everybody who could have waited.
            self._jobs.put(None)
