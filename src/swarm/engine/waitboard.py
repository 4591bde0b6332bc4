"""The waiting steps of one run: finds out which have ended, and wakes the driver in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from swarm.engine.waits import answered_step, due_step, event_step
from swarm.kernel.clock import from_text, now, now_text
from swarm.store.ports import RunJournal
from swarm.store.records import EventRecord, RunRecord, StepKey, StepRecord, StepState

LONGEST_SLEEP_SECONDS = 3_600.0
"""A timer looks at the clock again at least so often, as the clock may be set meanwhile."""
EVENTS_READ = 64
"""Events looked at in one query, besides those that the run has taken already."""


class WaitBoard:
    """The steps that wait; belongs to the driver's task."""

    def __init__(self, run: RunRecord, journal: RunJournal, wake: Callable[[], None]) -> None:
        """``wake`` is called when a timer has run out."""
        self._run = run
        self._journal = journal
        self._wake = wake
        self._waiting: dict[StepKey, StepRecord] = {}
        self._taken: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: str | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def wake_at(self) -> str | None:
        """When the first of the waits ends by itself."""
        return min((row.wake_at for row in self._waiting.values() if row.wake_at), default=None)

    def restore(self, rows: Iterable[StepRecord]) -> None:
        """Learn from the run's rows which events it has had."""
        for row in rows:
            if row.wait_kind == "event" and row.status is StepState.SUCCEEDED:
                self._taken.add(str((row.wait_details or {}).get("event_id")))

    def add(self, row: StepRecord) -> None:
        self._waiting[row.key] = row
        self._set_timer()

    def clear(self) -> list[StepRecord]:
        """Give up all waits; returns their rows."""
        rows = list(self._waiting.values())
        self._waiting.clear()
        self.close()
        return rows

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._timer_at = None

    async def look(self) -> list[StepRecord]:
        """The rows of the waits that have ended; they wait no more.

        A step that waits for its next attempt comes back as ``pending``.
        """
        ended = [*await self._answered(), *await self._with_events()]
        moment = now_text()
        for row in list(self._waiting.values()):
            if row.wake_at is not None and row.wake_at <= moment:
                del self._waiting[row.key]
                is_retry = row.wait_kind == "retry"
                ended.append(
                    replace(row, status=StepState.PENDING, wait_kind=None, wake_at=None)
                    if is_retry
                    else due_step(row)
                )
        self._set_timer()
        return ended

    async def _answered(self) -> list[StepRecord]:
        if not any(row.wait_kind == "approval" for row in self._waiting.values()):
            return []
        ended = []
        for answer in await self._journal.list_answers(self._run.id):
            row = self._waiting.get((answer.step_id, answer.item_index))
            if row is not None and row.wait_kind == "approval":
                del self._waiting[row.key]
                ended.append(answered_step(row, answer))
        return ended

    async def _with_events(self) -> list[StepRecord]:
        ended = []
        for row in [row for row in self._waiting.values() if row.wait_kind == "event"]:
            event = await self._next_event(row)
            if event is not None:
                del self._waiting[row.key]
                self._taken.add(event.id)
                details = {**(row.wait_details or {}), "event_id": event.id}
                ended.append(event_step(replace(row, wait_details=details), event))
        return ended

    async def _next_event(self, row: StepRecord) -> EventRecord | None:
        """The oldest event for the step that the run has not had."""
        events = await self._journal.find_events(
            row.wait_name or "",
            row.wait_key,
            self._run.created_at,
            EVENTS_READ + len(self._taken),
            self._run.project_id,
        )
        return next((event for event in events if event.id not in self._taken), None)

    def _set_timer(self) -> None:
        wake_at = self.wake_at
        if wake_at == self._timer_at:
            return
        self.close()
        if wake_at is not None:
            seconds = max(0.0, (from_text(wake_at) - now()).total_seconds())
            self._timer_at = wake_at
            self._timer = asyncio.get_running_loop().call_later(
                min(seconds, LONGEST_SLEEP_SECONDS), self._run_out
            )

    def _run_out(self) -> None:
        self._timer = self._timer_at = None
        if (wake_at := self.wake_at) is not None and wake_at > now_text():
            self._set_timer()
        else:
            self._wake()
