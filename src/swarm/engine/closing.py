"""Closes a run: the verdict, the actions that follow it one after the other, the last commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from swarm.engine.batch import Batch
from swarm.engine.book import RunBook, cancelled_step, skipped_step
from swarm.engine.calling import Caller
from swarm.engine.compiled import CompiledNotification, named_steps
from swarm.engine.ending import NOT_REACHED, Verdict, failed_by, with_outputs
from swarm.engine.starting import Starter
from swarm.engine.steps import StepTools
from swarm.kernel.clock import now_text
from swarm.kernel.errors import SwarmError
from swarm.store.records import NO_ITEM, RunState, StepState


class Closing:
    """How one run is brought to its end; belongs to its driver's task."""

    def __init__(
        self,
        book: RunBook,
        starter: Starter,
        tools: StepTools,
        caller: Caller,
        is_busy: Callable[[Batch], bool],
    ) -> None:
        """``is_busy`` says whether anything of the run is under way."""
        self._book = book
        self._starter = starter
        self._tools = tools
        self._caller = caller
        self._is_busy = is_busy
        self._actions: deque[CompiledNotification | str] = deque()
        self.verdict: Verdict | None = None
        """None until it is known how the run ends."""

    async def go_on(self, batch: Batch) -> None:
        """Nothing is under way: find the verdict, if there is none yet, and do its actions."""
        if self.verdict is not None:
            await self._next_action(self.verdict, batch)
            return
        book = self._book
        fatal = book.fatal()
        if fatal is not None:
            verdict = failed_by(fatal)
        else:
            scope = await book.scope(named_steps(book.workflow.outputs))
            verdict = with_outputs(book.workflow, book.run, scope)
        await self.begin(verdict, batch)

    async def begin(self, verdict: Verdict, batch: Batch) -> None:
        """Begin to end the run: what was not reached ends, then the actions are done in turn."""
        self.verdict = verdict
        book = self._book
        is_cancelled = verdict.status is RunState.CANCELLED
        for step_id in book.progress.unreached:
            row = book.rows[step_id]
            self._starter.note_interrupted(row, batch)
            if row.child_run_id is not None and row.status is StepState.RUNNING:
                await self._caller.cancel(row.child_run_id)
            if is_cancelled or row.status is not StepState.PENDING:
                row = cancelled_step(row, NOT_REACHED)
            else:
                row = skipped_step(row, NOT_REACHED)
            book.give_up(row)
            batch.steps.append(row)
        await self._give_up_items(batch)
        self._actions = deque(book.workflow.actions[verdict.actions])
        await self._next_action(verdict, batch)

    async def _give_up_items(self, batch: Batch) -> None:
        """End the items that a host which died left running and that were not started again."""
        book = self._book
        for step_id in book.items.keys() & book.workflow.plan.dependencies.keys():
            for item in book.items.pop(step_id).values():
                if item.status.is_final:
                    continue
                self._starter.note_interrupted(item, batch)
                if item.child_run_id is not None:
                    await self._caller.cancel(item.child_run_id)
                batch.steps.append(cancelled_step(item, NOT_REACHED))

    async def _next_action(self, verdict: Verdict, batch: Batch) -> None:
        """Do the actions that are left, up to one that takes time; after the last, end the run."""
        while self._actions:
            action = self._actions.popleft()
            if isinstance(action, CompiledNotification):
                await self._notify(action, verdict, batch)
            elif not self._book.rows[action].status.is_final:
                # One that is final was done before another host took the run over.
                await self._start(action, verdict, batch)
                if self._is_busy(batch):
                    return
        await self._finish(verdict, batch)

    async def _start(self, action: str, verdict: Verdict, batch: Batch) -> None:
        batch.run |= verdict.fields()
        error = verdict.as_error() if verdict.status is not RunState.SUCCEEDED else None
        ended = deque(await self._starter.start(action, batch, error))
        while ended:
            row = ended.popleft()
            if row.item_index == NO_ITEM:
                self._starter.note_end(row, batch)
            else:
                self._starter.note_item(row, batch)
                ended += await self._starter.fill(row.step_id, batch)

    async def _finish(self, verdict: Verdict, batch: Batch) -> None:
        book = self._book
        for step_id, row in book.rows.items():
            if not row.status.is_final:  # a step of an action that was not called for
                book.rows[step_id] = skipped_step(row, NOT_REACHED)
                batch.steps.append(book.rows[step_id])
        ended: dict[str, Any] = {
            "status": verdict.status,
            "completed_at": now_text(),
            **verdict.fields(),
        }
        book.run = replace(book.run, outputs=verdict.outputs, **ended)
        batch.run |= {
            **ended,
            "outputs": await self._tools.values.stored(verdict.outputs),
            "step_results": await self._tools.values.stored(book.all_results()),
        }
        data = {"status": str(verdict.status), "outputs": verdict.outputs, **verdict.fields()}
        batch.events.append(("run.finished", None, data))

    async def _notify(self, action: CompiledNotification, verdict: Verdict, batch: Batch) -> None:
        """Send a notification. Written before the commit: at least once."""
        scope = await self._book.scope(named_steps(action.message), {"error": verdict.as_error()})
        try:
            level, message = action.definition.level, str(action.message.evaluate(scope))
        except SwarmError as error:
            level, message = "error", f"a notification could not be written: {error}"
        self._tools.write_log(None, 0, "notify", level, message)
        batch.events.append(("notify", None, {"level": level, "message": message}))
