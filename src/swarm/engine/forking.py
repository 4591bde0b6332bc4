"""Repeating a run with something changed: from a step, with other inputs, with pinned results."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from swarm.engine.api import ForkRequest
from swarm.engine.compiled import CompiledWorkflow
from swarm.engine.creation import RunCreator, again
from swarm.engine.lookup import find_run
from swarm.engine.pins import PinnedReferences, Pins
from swarm.engine.values import Values
from swarm.kernel.clock import now_text
from swarm.kernel.errors import ConflictError, InputError, NotFoundError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject
from swarm.store.ports import RunJournal
from swarm.store.records import NO_ITEM, RunRecord, StepRecord, StepState


class RunForker:
    """Makes new runs out of what others have done."""

    def __init__(
        self, journal: RunJournal, pins: Pins, creator: RunCreator, values: Values
    ) -> None:
        self._journal = journal
        self._pins = pins
        self._creator = creator
        self._values = values

    async def fork(self, request: ForkRequest) -> RunRecord:
        """See :meth:`swarm.engine.api.Runs.fork`."""
        origin = await find_run(self._journal, request.origin)
        wanted = await again(origin, self._values)
        wanted = replace(wanted, inputs={**wanted.inputs, **(request.inputs or {})})
        if request.latest:
            record = await self._pins.resolve_workflow(origin.workflow_name)
            compiled = await self._pins.workflow(record.id)
            pinned = await self._pins.references(compiled)
        else:
            record = await self._pins.workflow_record(origin.workflow_id)
            compiled = await self._pins.workflow(record.id)
            pinned = PinnedReferences(origin.agents, origin.workflows)
        _check_steps(request, compiled)
        new = await self._creator.prepare(wanted, record, compiled, pinned, origin)
        rows = await self._journal.list_steps(origin.id)
        kept = self._kept_rows(request, compiled, origin, rows)
        copied = {row.step_id for row in kept}
        steps = [
            replace(row, id=new_id("step"), run_id=new.run.id, queued_at=now_text()) for row in kept
        ]
        steps += [row for row in new.steps if row.step_id not in copied]
        order = {step: index for index, step in enumerate(compiled.steps)}
        steps.sort(key=lambda row: (order[row.step_id], row.item_index))
        overrides = {"steps": dict(request.step_inputs)} if request.step_inputs else {}
        run = replace(new.run, overrides=overrides)
        return await self._journal.create_run(replace(new, run=run, steps=tuple(steps)))

    def _kept_rows(
        self,
        request: ForkRequest,
        compiled: CompiledWorkflow,
        origin: RunRecord,
        rows: Iterable[StepRecord],
    ) -> list[StepRecord]:
        """The rows that the new run takes over, those of items too."""
        by_step: dict[str, list[StepRecord]] = {}
        for row in rows:
            by_step.setdefault(row.step_id, []).append(row)
        own = {
            step: next(row for row in found if row.item_index == NO_ITEM)
            for step, found in by_step.items()
            if step in compiled.plan.dependencies
        }
        kept = self._kept_steps(request, compiled, own)
        taken: list[StepRecord] = []
        for step in compiled.plan.dependencies:
            if step in request.pinned:
                taken += _pinned_rows(step, request.pinned[step], by_step.get(step, []), origin)
            elif step in kept:
                taken += [_taken_over(row, origin) for row in by_step[step]]
        return taken

    def _kept_steps(
        self, request: ForkRequest, compiled: CompiledWorkflow, own: dict[str, StepRecord]
    ) -> frozenset[str]:
        """The steps whose results stand: neither run again nor downstream of one that is."""
        plan = compiled.plan
        if request.from_steps is None and not request.step_inputs:
            return frozenset()
        begin = {*(request.from_steps or ()), *request.step_inputs}
        begin |= {
            step
            for step in plan.dependencies
            if step not in request.pinned
            and (step not in own or not _stands(own[step], step in plan.tolerant))
        }
        again_: set[str] = set()
        for step in begin:
            again_ |= plan.downstream(step)
        return frozenset(plan.dependencies) - again_


def _check_steps(request: ForkRequest, compiled: CompiledWorkflow) -> None:
    """Raise NotFoundError for a step that the workflow has not, InputError for a misuse."""
    known = compiled.plan.dependencies
    for step in (*(request.from_steps or ()), *request.step_inputs, *request.pinned):
        if step not in known:
            raise NotFoundError(
                f"the workflow has no step {step}", name=step, known=known,
                remedy=f"its steps: {', '.join(known)}",
            )  # fmt: skip
    both = request.pinned.keys() & {*request.step_inputs, *(request.from_steps or ())}
    if both:
        raise InputError(
            f"the step {min(both)} cannot be pinned and run again at the same time",
            remedy="leave one of the two out",
        )
    for step in request.step_inputs:
        if compiled.steps[step].wait is not None:
            raise InputError(f"the step {step} waits: it has no inputs to change")


def _stands(row: StepRecord, is_tolerated: bool) -> bool:
    """Whether the result of a step can be taken over."""
    if row.status is StepState.SKIPPED:
        return row.error_code is None
    return row.status is StepState.SUCCEEDED or (row.status is StepState.FAILED and is_tolerated)


def _taken_over(row: StepRecord, origin: RunRecord) -> StepRecord:
    return replace(row, reused_from=row.reused_from or origin.id)


def _pinned_rows(
    step: str, outputs: JsonObject | None, rows: list[StepRecord], origin: RunRecord
) -> list[StepRecord]:
    """The rows of a step with pinned outputs.

    Raises:
        ConflictError: the outputs that it had are wanted, and it had none.
        InputError: outputs are given for a step that runs over items.
    """
    own = next((row for row in rows if row.item_index == NO_ITEM), None)
    if outputs is None:
        if own is None or own.status is not StepState.SUCCEEDED:
            raise ConflictError(
                f"the step {step} of run {origin.id} has no outputs to pin",
                remedy=f"give them: --pin '{step}={{...}}'",
            )
        return [_taken_over(row, origin) for row in rows]
    if own is not None and own.item_count is not None:
        raise InputError(
            f"the step {step} runs over items, so only the outputs that it had can be pinned",
            remedy=f"leave the value out: --pin {step}",
        )
    moment = now_text()
    base = own or StepRecord(id="", run_id=origin.id, step_id=step, project_id=origin.project_id)
    pinned = replace(
        base,
        status=StepState.SUCCEEDED,
        outputs=outputs,
        started_at=moment,
        completed_at=moment,
        duration_ms=0,
        error=None,
        error_code=None,
        reused_from=origin.id,
    )
    return [pinned]
