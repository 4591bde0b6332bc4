"""Drives one run: starts what is reachable, journals what happens, ends the run.

The journal leads: a step is recorded as running before its sandbox starts, and the commit that ends
a step also marks what it made reachable. So a process that dies at any moment leaves a journal from
which another can go on: ended steps are never run again, running ones are.

Only the driver's own task touches the state; steps, timers and peers report to it through a queue.
A run in which nothing is left to do but to wait is given up, and taken up again when what it waits
for has come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from swarm.engine.batch import Batch
from swarm.engine.book import RunBook, cancelled_step
from swarm.engine.budget import Ledger
from swarm.engine.calling import Caller, called_step
from swarm.engine.closing import Closing
from swarm.engine.compiled import CompiledWorkflow
from swarm.engine.ending import (
    CANCELLATION,
    NOT_REACHED,
    Verdict,
    recorded_verdict,
    timed_out,
)
from swarm.engine.events import EventKind
from swarm.engine.files import FileAccess
from swarm.engine.hub import PublishEvent
from swarm.engine.invocations import Invoker, PinnedAgent
from swarm.engine.logs import RunLog
from swarm.engine.starting import Starter
from swarm.engine.steps import StepEnd, StepExecution, StepTools, retry_pause
from swarm.engine.values import Values
from swarm.engine.waitboard import WaitBoard
from swarm.engine.waits import RETRY
from swarm.kernel.clock import from_text, now, now_text, to_text
from swarm.kernel.errors import SwarmError
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import Settings
from swarm.store.ports import RunJournal
from swarm.store.records import (
    NO_ITEM,
    RunChanges,
    RunRecord,
    RunState,
    StepKey,
    StepRecord,
    StepState,
    Usage,
)

HOLD_SECONDS = 2.0
"""A run that only waits is held, not given up, if a timer ends the wait within this time."""


class DriverTools(Struct, frozen=True):
    """What a driver works with, besides its run."""

    journal: RunJournal
    invoker: Invoker
    files: FileAccess
    values: Values
    ledger: Ledger | None
    caller: Caller
    log: RunLog
    publish: PublishEvent
    settings: Settings


class _Note(Struct, frozen=True):
    """Something that has happened outside the driver."""

    kind: str
    """``cancel``, ``timeout``, ``look`` (at what steps wait for) or ``called`` (a run changed)."""
    step: StepKey | None = None


class RunDriver:
    """Drives one claimed run to its end, or until it only waits."""

    def __init__(
        self,
        run: RunRecord,
        workflow: CompiledWorkflow,
        agents: Mapping[str, PinnedAgent],
        tools: DriverTools,
    ) -> None:
        """
        Args:
            run: as it was claimed; every commit carries its epoch.
            workflow: what the run is pinned to.
            agents: the pinned agents by their references in the steps.
            tools: journal, sandboxes and the rest.
        """
        self._tools = tools
        self._workflow = workflow
        self._book = RunBook(run, workflow, tools.values)
        self._events: asyncio.Queue[StepEnd | BaseException | _Note] = asyncio.Queue()
        self._running: dict[StepKey, tuple[StepExecution, asyncio.Task[None]]] = {}
        self._cancelling: set[asyncio.Future[None]] = set()
        self._dormant: set[StepKey] = set()
        self._timeout: asyncio.TimerHandle | None = None
        self._log_failed = False
        self._released = False
        self._used = Usage(run.total_vm_time_ms, run.total_api_tokens, run.total_cost_micros)
        self._keeps_tree = bool(
            run.parent_run_id or workflow.workflows or workflow.definition.budget
        )
        step_tools = StepTools(
            run, tools.journal, tools.invoker, tools.files, tools.values, tools.ledger,
            self._commit, self._publish, self._write_log,
        )  # fmt: skip
        self._board = WaitBoard(run, tools.journal, self.look)
        self._starter = Starter(
            self._book, agents, step_tools, tools.caller, self._board, tools.settings
        )
        self._closing = Closing(self._book, self._starter, step_tools, tools.caller, self._is_busy)

    # -- told from outside -----------------------------------------------------------------------

    def cancel(self) -> None:
        """End the run as cancelled: running sandboxes are killed, nothing further starts."""
        self._events.put_nowait(_Note("cancel"))

    def look(self) -> None:
        """Something that a step waits for may have come."""
        self._events.put_nowait(_Note("look"))

    def called_run_changed(self, step: StepKey) -> None:
        """The run that a step calls has ended, or only waits."""
        self._events.put_nowait(_Note("called", step))

    @property
    def has_missed_something(self) -> bool:
        """Whether the run was given up in the very moment in which something was told."""
        return self._released and not self._events.empty()

    # -- the loop --------------------------------------------------------------------------------

    async def drive(self, steps: Sequence[StepRecord] | None = None) -> RunRecord:
        """Drive to the end, or until the run only waits; return it as it then is.

        ``steps`` are the run's rows, where they were read with its claim.

        Cancelling this coroutine kills the sandboxes and leaves the run as it stands, to be
        resumed.

        Raises:
            OwnershipLost: another host has taken the run over.
            DatabaseError: the journal cannot be written; the run can be resumed later.
        """
        try:
            await self._begin(steps)
            while not self._run.status.is_final and not self._released:
                await self._next()
            return self._run
        finally:
            await self._kill_running()
            self._board.close()
            if self._timeout is not None:
                self._timeout.cancel()
            self._tools.log.close()

    @property
    def _run(self) -> RunRecord:
        return self._book.run

    async def _begin(self, steps: Sequence[StepRecord] | None) -> None:
        """See how far the run has come and start what is reachable."""
        rows = await self._tools.journal.list_steps(self._run.id) if steps is None else steps
        await self._book.load(rows)
        self._board.restore(rows)
        resumed = self._run.started_at is not None
        verdict = recorded_verdict(self._run)
        started_at = self._run.started_at or now_text()
        self._book.begin(started_at)
        self._set_run(status=RunState.RUNNING, started_at=started_at, wake_at=None)
        batch = Batch()
        batch.run = {"status": RunState.RUNNING, "started_at": started_at}
        batch.events.append(("run.started", None, {"resumed": resumed}))
        self._set_timeout(started_at)
        if verdict is not None:
            await self._closing.begin(verdict, batch)
        elif self._run.cancel_requested and not self._book.has_succeeded:
            await self._closing.begin(CANCELLATION, batch)
        else:
            await self._advance([], self._book.progress.reachable(), batch)
        await self._apply(batch)
        if self._board:
            self.look()

    def _set_timeout(self, started_at: str) -> None:
        seconds = self._time_limit
        if seconds is not None:
            left = from_text(started_at) + timedelta(seconds=seconds) - now()
            loop = asyncio.get_running_loop()
            self._timeout = loop.call_later(
                max(0.0, left.total_seconds()), self._events.put_nowait, _Note("timeout")
            )

    @property
    def _time_limit(self) -> float | None:
        limits = (
            self._workflow.definition.timeout_seconds,
            self._run.overrides.get("timeout_seconds"),
        )
        return min((limit for limit in limits if limit is not None), default=None)

    async def _next(self) -> None:
        """Wait for something to happen, and journal all that has happened together."""
        happened = [await self._events.get()]
        while not self._events.empty():
            happened.append(self._events.get_nowait())
        batch = Batch()
        ended: list[StepRecord] = []
        notes: dict[str, list[StepKey | None]] = {}
        for each in happened:
            if isinstance(each, BaseException):
                raise each
            if isinstance(each, _Note):
                notes.setdefault(each.kind, []).append(each.step)
            else:
                ended.append(self._note_attempt(each, batch))
        changed = [step for step in notes.get("called", []) if step is not None]
        if "look" in notes:  # a called run that another host drives tells of its end so, too
            ended += await self._board.look()
            changed = list(self._starter.called)
        for step in await self._ended_calls(dict.fromkeys(changed)):
            ended.append(await self._note_called(step))
        if self._closing.verdict is None and "cancel" in notes:
            await self._stop(CANCELLATION, ended, batch)
        elif self._closing.verdict is None and "timeout" in notes:
            await self._stop(timed_out(self._time_limit or 0.0), ended, batch)
        else:
            await self._advance(ended, [], batch)
        await self._apply(batch)
        if self._only_waits:
            await self._release()

    def _note_attempt(self, end: StepEnd, batch: Batch) -> StepRecord:
        """Note that the attempts of a step or an item are over."""
        self._running.pop(end.step.key, None)
        if end.invocation is not None:
            batch.invocations.append(end.invocation)
        if end.cached is not None:
            batch.cached.append(end.cached)
        batch.add_usage(end.usage)
        return end.step

    async def _ended_calls(self, steps: Iterable[StepKey]) -> list[StepKey]:
        """Those of these steps whose called runs have ended; notes which of the others sleep."""
        called = self._starter.called
        runs = {step: called[step].child_run_id or "" for step in steps if step in called}
        owners = await self._tools.caller.owners(list(runs.values())) if runs else {}
        ended: list[StepKey] = []
        for step, run_id in runs.items():
            status, owner = owners[run_id]
            if status.is_final:
                ended.append(step)
            elif owner is None:
                self._dormant.add(step)
                continue
            self._dormant.discard(step)
        return ended

    async def _note_called(self, step: StepKey) -> StepRecord:
        """The row of a step whose called run has ended."""
        row = self._starter.called[step]
        child = await self._tools.caller.get(row.child_run_id or "")
        del self._starter.called[step]
        if child.status is RunState.CANCELLED and self._book.progress.failed:
            return cancelled_step(row, NOT_REACHED)  # given up because of another failure
        ended = called_step(row, child)
        if ended.status is StepState.FAILED:
            retry = self._workflow.steps[row.step_id].definition.retry
            pause = retry_pause(retry, row, ended.error_code)
            if pause is not None and not self._book.progress.failed:
                return self._pausing(ended, pause)
        return ended

    def _pausing(self, failed: StepRecord, pause: float) -> StepRecord:
        """The row of a step that waits for its next attempt."""
        return replace(
            failed,
            status=StepState.WAITING,
            wait_kind=RETRY,
            wake_at=to_text(now() + timedelta(seconds=pause)),
            retry_count=failed.retry_count + 1,
            completed_at=None,
            child_run_id=None,
        )

    # -- steps end, others start -----------------------------------------------------------------

    async def _advance(self, ended: list[StepRecord], reachable: list[str], batch: Batch) -> None:
        """Note what has ended and start all that this makes reachable, until nothing moves."""
        book, pending, startable = self._book, deque(ended), deque(reachable)
        unfilled: dict[str, None] = {}
        while pending or startable or unfilled:
            if pending:
                row = pending.popleft()
                if row.status is StepState.PENDING:  # its pause before the next attempt is over
                    pending += await self._starter.restart(row, batch)
                elif row.status is StepState.WAITING:
                    batch.steps.append(row)
                    self._board.add(row)
                elif row.item_index != NO_ITEM and row.status is StepState.CANCELLED:
                    batch.steps.append(row)  # given up; in its place no other starts
                elif row.item_index != NO_ITEM:
                    self._starter.note_item(row, batch)
                    unfilled[row.step_id] = None
                else:
                    startable += self._starter.note_end(row, batch)
            elif unfilled:
                step_id = unfilled.popitem()[0]
                if step_id in book.sets:
                    pending += await self._starter.fill(step_id, batch)
            else:
                step_id = startable.popleft()
                if book.progress.may_start(step_id):
                    pending += await self._starter.start(step_id, batch)
        if book.progress.failed and self._closing.verdict is None:
            self._give_up_waits(batch)
        if not self._is_busy(batch):
            await self._closing.go_on(batch)

    def _is_busy(self, batch: Batch) -> bool:
        return bool(self._running or batch.starting or self._starter.called or self._board)

    def _give_up_waits(self, batch: Batch) -> None:
        """A run that has failed waits for nothing more; what is running may still end."""
        for row in self._board.clear():
            if row.item_index == NO_ITEM:
                self._book.rows[row.step_id] = row
            else:
                batch.steps.append(cancelled_step(row, NOT_REACHED))
        while self._dormant:
            run_id = self._starter.called[self._dormant.pop()].child_run_id or ""
            cancelling = asyncio.ensure_future(self._tools.caller.cancel(run_id))
            self._cancelling.add(cancelling)
            cancelling.add_done_callback(self._cancelling.discard)

    async def _apply(self, batch: Batch) -> None:
        """Make the batch durable, then tell followers and start sandboxes and called runs."""
        if not batch.is_empty:
            await self._commit(batch.changes(), batch.usage)
        batch.tell(self._run.id, self._tools.publish)
        for execution in batch.starting:
            step = execution.step
            task = asyncio.create_task(self._run_step(execution), name=step.step_id)
            self._running[step.key] = (execution, task)
        for run_id in batch.calling:
            await self._tools.caller.start(run_id)
        if any(kind == "step.waiting" for kind, _, _ in batch.events):
            self.look()  # what it waits for may have come before

    async def _run_step(self, execution: StepExecution) -> None:
        """Run a step and pass its end to the driver; an error (a failed journal, a bug) ends the
        drive."""
        try:
            self._events.put_nowait(await execution.run())
        except Exception as error:  # noqa: BLE001 - the driver raises it
            self._events.put_nowait(error)

    # -- waiting ---------------------------------------------------------------------------------

    @property
    def _only_waits(self) -> bool:
        """Whether nothing is left to do here until something happens elsewhere."""
        if self._run.status.is_final or self._running or not self._events.empty():
            return False
        if self._closing.verdict is not None or self._starter.called.keys() - self._dormant:
            return False
        wake_at = self._board.wake_at
        return wake_at is None or wake_at > to_text(now() + timedelta(seconds=HOLD_SECONDS))

    async def _release(self) -> None:
        """Give the run up until something happens, unless it has happened meanwhile."""
        wake_at = self._board.wake_at
        if self._time_limit is not None and self._run.started_at is not None:
            limit = from_text(self._run.started_at) + timedelta(seconds=self._time_limit)
            wake_at = min(wake_at or to_text(limit), to_text(limit))
        changes = RunChanges(run={"status": RunState.WAITING, "wake_at": wake_at})
        self._released = await self._tools.journal.release_run(
            self._run.id, self._run.epoch, changes, owner=self._run.owner
        )
        if not self._released:
            self.look()
            latest = await self._tools.journal.get_run(self._run.id)
            if latest is not None and latest.cancel_requested:
                self.cancel()
            return
        self._set_run(status=RunState.WAITING, wake_at=wake_at, owner=None)
        self._publish("run.waiting", None, {"wake_at": wake_at})

    # -- ending ----------------------------------------------------------------------------------

    async def _stop(self, verdict: Verdict, ended: list[StepRecord], batch: Batch) -> None:
        """Kill what runs, and close the run with this verdict."""
        killed = await self._kill_running()
        while not self._events.empty():  # what ended before the kill reached it stands
            event = self._events.get_nowait()
            if isinstance(event, StepEnd):
                killed.pop(event.step.key, None)
                ended.append(self._note_attempt(event, batch))
        called = list(self._starter.called.values())
        await asyncio.gather(*(self._tools.caller.cancel(row.child_run_id or "") for row in called))
        self._starter.called.clear()
        self._dormant.clear()
        for execution in killed.values():
            if (invocation := execution.killed()) is not None:
                batch.invocations.append(invocation)
                batch.add_usage(
                    Usage(invocation.wall_ms or 0, invocation.tokens, invocation.cost_micros)
                )
            ended.append(cancelled_step(execution.step))
        ended += [cancelled_step(row) for row in called]
        ended += [cancelled_step(row) for row in self._board.clear()]
        for each in ended:
            row = each if each.status.is_final else cancelled_step(each)
            if row.item_index != NO_ITEM:
                self._starter.note_item(row, batch)
            else:
                self._starter.note_end(row, batch)
        await self._closing.begin(verdict, batch)

    async def _kill_running(self) -> dict[StepKey, StepExecution]:
        """Cancel the running steps and wait until their sandboxes are gone; what was given up."""
        running, self._running = self._running, {}
        for _, task in running.values():
            task.cancel()
        for _, task in running.values():
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return {key: execution for key, (execution, _) in running.items()}

    # -- writing ---------------------------------------------------------------------------------

    def _set_run(self, **fields: Any) -> None:
        self._book.run = replace(self._run, **fields)

    async def _commit(self, changes: RunChanges, usage: Usage) -> None:
        run = self._run
        if usage.vm_time_ms or usage.tokens or usage.cost_micros:
            self._used += usage
            totals = {
                "total_vm_time_ms": self._used.vm_time_ms,
                "total_api_tokens": self._used.tokens,
                "total_cost_micros": self._used.cost_micros,
            }
            tree = (run.root_run_id or run.id, usage) if self._keeps_tree else None
            changes = replace(changes, run={**changes.run, **totals}, tree_usage=tree)
        await self._tools.journal.commit(run.id, run.epoch, changes, owner=run.owner)

    def _publish(self, kind: EventKind, step_id: str | None, data: JsonObject) -> None:
        self._tools.publish(self._run.id, kind, step_id, data)

    def _write_log(
        self, step_id: str | None, attempt: int, stream: str, level: str, message: str
    ) -> None:
        """Keep a line; should that fail, say so once and go on: the work matters more."""
        try:
            self._tools.log.append(step_id, attempt, stream, level, message)
        except SwarmError as error:
            if not self._log_failed:
                self._log_failed = True
                self._publish(
                    "log", None, {"stream": "log", "level": "error", "message": str(error)}
                )
