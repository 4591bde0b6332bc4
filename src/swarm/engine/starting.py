"""How steps start: skipped, over items, by calling an agent or a workflow, or by waiting."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from swarm.engine.batch import Batch
from swarm.engine.book import RunBook, failed_step, skipped_step
from swarm.engine.calling import Caller, calling_step
from swarm.engine.compiled import CompiledStep
from swarm.engine.invocations import PinnedAgent, checked_inputs
from swarm.engine.items import ItemSet
from swarm.engine.steps import StepExecution, StepTools, interrupted_record
from swarm.engine.waitboard import WaitBoard
from swarm.engine.waits import waiting_step
from swarm.expressions.template import evaluate_condition
from swarm.kernel.clock import now, now_text
from swarm.kernel.errors import InputError, SwarmError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import MIB, Settings
from swarm.store.records import StepKey, StepRecord, StepState


class Starter:
    """Starts the steps of one run; what it starts goes into a batch."""

    def __init__(
        self,
        book: RunBook,
        agents: Mapping[str, PinnedAgent],
        tools: StepTools,
        caller: Caller,
        board: WaitBoard,
        settings: Settings,
    ) -> None:
        self._book = book
        self._agents = agents
        self._tools = tools
        self._caller = caller
        self._board = board
        self._settings = settings
        self._item_scopes: dict[str, dict[str, JsonValue]] = {}
        self.called: dict[StepKey, StepRecord] = {}
        """The rows of steps whose called run has not ended."""

    async def start(
        self, step_id: str, batch: Batch, error: JsonObject | None = None
    ) -> list[StepRecord]:
        """Start a step that may be looked at; ``error`` is what an action sees.

        Returns the rows that have ended at once: skipped, failed, or with nothing to do. Rows of
        items come before the row of their step.
        """
        book, row = self._book, self._book.rows[step_id]
        compiled = book.workflow.steps[step_id]
        is_planned = step_id in book.workflow.plan.dependencies
        if is_planned and book.progress.is_skipped(step_id):
            return [skipped_step(row)]
        if compiled.guard is not None:
            error = book.error_of(compiled.guard)
        try:
            extra = {"error": error} if error is not None else None
            scope = await book.scope(compiled.steps_named, extra)
            if compiled.when is not None and not evaluate_condition(compiled.when, scope):
                return [skipped_step(row)]
            if compiled.for_each is not None:
                return await self._start_items(compiled, row, scope, batch)
        except SwarmError as caught:
            return [failed_step(row, caught)]
        return await self.start_row(row, scope, batch)

    async def start_row(
        self, row: StepRecord, scope: Mapping[str, JsonValue], batch: Batch
    ) -> list[StepRecord]:
        """Start one execution, of a step or of an item, or go on with it; as :meth:`start`."""
        compiled = self._book.workflow.steps[row.step_id]
        try:
            if row.status is StepState.WAITING:
                self._board.add(row)
            elif compiled.wait is not None:
                self._begin_wait(compiled, row, scope, batch)
            elif row.status is StepState.RUNNING and row.child_run_id is not None:
                self._call(row, batch)
            elif compiled.definition.workflow is not None:
                await self._begin_call(compiled, row, scope, batch)
            else:
                await self._begin_agent(compiled, row, scope, batch)
        except SwarmError as error:
            return [failed_step(row, error)]
        return []

    async def restart(self, row: StepRecord, batch: Batch) -> list[StepRecord]:
        """Start an execution again whose pause before the next attempt is over."""
        compiled = self._book.workflow.steps[row.step_id]
        if row.step_id in self._item_scopes:
            scope = self._scope_of_item(row.step_id, row.item_index)
        else:
            error = self._book.error_of(compiled.guard) if compiled.guard is not None else None
            extra = {"error": error} if error else None
            scope = await self._book.scope(compiled.steps_named, extra)
        return await self.start_row(row, scope, batch)

    # -- items -----------------------------------------------------------------------------------

    async def _start_items(
        self, compiled: CompiledStep, row: StepRecord, scope: dict[str, JsonValue], batch: Batch
    ) -> list[StepRecord]:
        values = compiled.for_each.evaluate(scope) if compiled.for_each is not None else None
        most = self._settings.max_items
        if not isinstance(values, list):
            raise InputError(f"`for_each` must give an array, got {type(values).__name__}")
        if len(values) > most:
            raise InputError(
                f"`for_each` gave {len(values):,} items; the limit is {most:,}",
                remedy="split the work over several runs, or raise the setting max_items",
            )
        definition = compiled.definition
        parallel = definition.max_parallel or self._settings.for_each_parallel
        items = ItemSet(values, parallel, stops_at_failure=definition.on_error != "continue")
        begun = self._book.items.pop(row.step_id, {})
        for item in begun.values():
            if item.status.is_final:
                items.restore(item)
        self._book.items[row.step_id] = {
            index: item for index, item in begun.items() if not item.status.is_final
        }
        self._book.sets[row.step_id] = items
        self._item_scopes[row.step_id] = scope
        if row.status is not StepState.RUNNING:
            row = replace(
                row,
                status=StepState.RUNNING,
                started_at=row.started_at or now_text(),
                item_count=len(values),
            )
            self._book.rows[row.step_id] = row
            if values:
                batch.steps.append(row)
        batch.events.append(("step.started", row.step_id, {"attempt": 1, "items": len(values)}))
        return await self.fill(row.step_id, batch)

    async def fill(self, step_id: str, batch: Batch) -> list[StepRecord]:
        """Start as many items of a step as may run now; as :meth:`start`."""
        items = self._book.sets[step_id]
        begun = self._book.items.get(step_id, {})
        ended: list[StepRecord] = []
        for index in items.startable():
            row = begun.pop(index, None) or StepRecord(
                id=new_id("step"),
                run_id=self._book.run.id,
                step_id=step_id,
                item_index=index,
                queued_at=now_text(),
                project_id=self._book.run.project_id,
            )
            ended += await self.start_row(row, self._scope_of_item(step_id, index), batch)
        if items.is_over:
            ended.append(self._ended_step(step_id, items))
        return ended

    def note_item(self, row: StepRecord, batch: Batch) -> None:
        """Note that an item has ended; :meth:`fill` then starts further ones."""
        batch.steps.append(row)
        items = self._book.sets[row.step_id]
        items.end(row)
        items.output_bytes += self._tools.values.size(row.outputs)
        data = {
            **_ended_data(row),
            "index": row.item_index,
            "ended": items.ended,
            "items": len(items.values),
        }
        batch.events.append(("item.finished", row.step_id, data))

    def note_end(self, row: StepRecord, batch: Batch) -> list[str]:
        """Note that a step has ended; returns the steps that this made reachable."""
        batch.steps.append(row)
        batch.events.append(("step.finished", row.step_id, _ended_data(row)))
        return self._book.end(row)

    def _ended_step(self, step_id: str, items: ItemSet) -> StepRecord:
        """The row of a step whose items have all ended, or will not be started."""
        self._item_scopes.pop(step_id, None)
        self._book.items.pop(step_id, None)
        row = self._book.rows[step_id]
        moment = now_text()
        ended = replace(row, status=StepState.SUCCEEDED, completed_at=moment)
        if (failure := items.failure()) is not None:
            message, code = failure
            return replace(ended, status=StepState.FAILED, error=message, error_code=code)
        limit = self._settings.max_result_mb * MIB
        if items.output_bytes > limit:
            error = InputError(
                f"the outputs of its items have {items.output_bytes:,} bytes; the limit is "
                f"{limit:,}",
                remedy="hand large outputs on as files, or raise the setting max_result_mb",
            )
            return replace(ended, status=StepState.FAILED, error=str(error), error_code="too_large")
        return ended

    def _scope_of_item(self, step_id: str, index: int) -> dict[str, JsonValue]:
        scope, items = self._item_scopes[step_id], self._book.sets[step_id]
        return {**scope, "item": items.values[index], "index": index}

    # -- one execution ---------------------------------------------------------------------------

    def _begin_wait(
        self,
        compiled: CompiledStep,
        row: StepRecord,
        scope: Mapping[str, JsonValue],
        batch: Batch,
    ) -> None:
        if compiled.wait is None:
            raise AssertionError("a step without `wait` cannot wait")
        waiting = waiting_step(row, compiled.wait, scope, now())
        batch.steps.append(waiting)
        self._note_row(waiting)
        self._board.add(waiting)
        batch.events.append(
            (
                "step.waiting",
                row.step_id,
                {
                    "for": waiting.wait_kind,
                    "details": waiting.wait_details,
                    "wake_at": waiting.wake_at,
                    "index": row.item_index,
                },
            )
        )

    async def _begin_call(
        self,
        compiled: CompiledStep,
        row: StepRecord,
        scope: Mapping[str, JsonValue],
        batch: Batch,
    ) -> None:
        inputs = self._inputs(compiled, row, scope)
        new = await self._caller.new_run(self._book.run, row, compiled, inputs)
        calling = calling_step(row, new.run, await self._tools.values.stored(inputs))
        batch.steps.append(calling)
        batch.children.append(new)
        self._note_row(calling)
        self._call(calling, batch)
        self._tell_started(
            calling, {"workflow": compiled.definition.workflow, "run_id": new.run.id}, batch
        )

    def _call(self, row: StepRecord, batch: Batch) -> None:
        self.called[row.key] = row
        batch.calling.append(row.child_run_id or "")

    async def _begin_agent(
        self,
        compiled: CompiledStep,
        row: StepRecord,
        scope: Mapping[str, JsonValue],
        batch: Batch,
    ) -> None:
        agent = self._agents[compiled.definition.agent or ""]
        self.note_interrupted(row, batch)
        inputs = checked_inputs(agent, self._inputs(compiled, row, scope), compiled.secrets)
        stored = await self._tools.values.stored(inputs)
        execution = StepExecution(self._tools, compiled, agent, row, inputs, stored)
        batch.steps.append(execution.step)
        batch.starting.append(execution)
        self._note_row(execution.step)
        data = {"attempt": execution.step.attempt, "agent": agent.reference}
        self._tell_started(row, data, batch)

    def note_interrupted(self, row: StepRecord, batch: Batch) -> None:
        """Close the attempt that a host which died had under way, if there was one."""
        if row.error_code is not None:
            return  # that attempt was over, and the next had not begun
        if row.status is StepState.RUNNING and row.invocation_id is not None:
            reference = self._book.workflow.steps[row.step_id].definition.agent or ""
            digest = self._agents[reference].record.digest
            batch.invocations.append(interrupted_record(self._book.run, row, digest))

    def _inputs(
        self, compiled: CompiledStep, row: StepRecord, scope: Mapping[str, JsonValue]
    ) -> JsonObject:
        inputs: JsonObject = compiled.inputs.evaluate(scope)
        changed = self._book.run.overrides.get("steps", {}).get(row.step_id)
        return {**inputs, **changed} if changed else inputs

    def _note_row(self, row: StepRecord) -> None:
        if row.item_index < 0:
            self._book.rows[row.step_id] = row

    def _tell_started(self, row: StepRecord, data: JsonObject, batch: Batch) -> None:
        if row.item_index < 0:
            batch.events.append(("step.started", row.step_id, data))
        else:
            batch.events.append(("item.started", row.step_id, {**data, "index": row.item_index}))
        batch.run["current_step"] = row.step_id


def _ended_data(row: StepRecord) -> JsonObject:
    """What followers are told of a step that has ended."""
    return {
        "status": str(row.status),
        "error": row.error,
        "error_code": row.error_code,
        "duration_ms": row.duration_ms,
    }
