"""Creating runs: checks a request, pins what the run and all that it calls will use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from swarm.definitions.labels import label_name_fault, label_value_fault
from swarm.definitions.values import check_values
from swarm.engine.api import RunRequest
from swarm.engine.compiled import CompiledStep, CompiledWorkflow
from swarm.engine.pins import PinnedReferences, Pins
from swarm.engine.values import Values
from swarm.kernel.clock import now_text
from swarm.kernel.errors import ConflictError, InputError, InvalidError, RefusedError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject, JsonValue, dump_bytes
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation
from swarm.store.attributes import input_attributes, label_attributes
from swarm.store.ports import RunJournal
from swarm.store.records import (
    NO_ITEM,
    NewRun,
    RunRecord,
    StepRecord,
    StepState,
    WorkflowRecord,
)

MAX_KEY_CHARACTERS = 512
"""Of an idempotency key or a concurrency key."""


class RunCreator:
    """Checks a request, pins what it will use, and records the run."""

    def __init__(self, journal: RunJournal, pins: Pins, values: Values, settings: Settings) -> None:
        self._journal = journal
        self._pins = pins
        self._values = values
        self._settings = settings

    async def create(self, request: RunRequest, origin: RunRecord | None = None) -> RunRecord:
        """See :meth:`swarm.engine.api.Runs.create`; ``origin`` is the run that it repeats."""
        record = await self._pins.resolve_workflow(request.workflow)
        subject = f"{record.name}@{record.version}"
        if not record.enabled:
            raise RefusedError(
                f"the workflow {subject} is disabled",
                remedy=f"`swarm workflow enable {record.name}`",
            )
        compiled = await self._pins.workflow(record.id)
        pinned = await self._pins.references(compiled)
        new = await self.prepare(request, record, compiled, pinned, origin)
        run = new.run
        stands = await self._journal.create_run(new)
        if stands.id != run.id and await self._is_other(stands, run):
            raise ConflictError(
                f"the idempotency key {run.idempotency_key!r} was used for run {stands.id}, with "
                "other inputs",
                remedy="use another key for another run",
            )
        return stands

    async def _is_other(self, stands: RunRecord, new: RunRecord) -> bool:
        given = await self._values.loaded(new.inputs)
        return bool(given != await self._values.loaded(stands.inputs))

    async def prepare(
        self,
        request: RunRequest,
        record: WorkflowRecord,
        compiled: CompiledWorkflow,
        pinned: PinnedReferences,
        origin: RunRecord | None = None,
    ) -> NewRun:
        """A run that nobody calls, with its steps; not recorded yet.

        Raises:
            InputError: the inputs do not fit what is declared.
            InvalidError: labels or keys are too many or too long.
        """
        self._check_size(request.inputs, f"{record.name}@{record.version}")
        priority = compiled.definition.priority if request.priority is None else request.priority
        run = RunRecord(
            id=new_id("run"),
            workflow_id=record.id,
            workflow_name=record.name,
            workflow_version=record.version,
            trigger_type=request.trigger_type,
            trigger_data=request.inputs,
            mounts=request.mounts,
            isolation=request.isolation,
            idempotency_key=_checked_key(request.idempotency_key, "an idempotency key"),
            priority=priority,
            origin_run_id=origin.id if origin is not None else None,
            created_at=now_text(),
            project_id=record.project_id,
        )
        return await self._new_run(run, compiled, pinned, request.inputs, request.labels)

    async def create_again(self, run: RunRecord) -> RunRecord:
        """A new run of the same workflow version with the inputs of ``run``."""
        return await self.create(await again(run, self._values), origin=run)

    async def called_run(
        self, caller: RunRecord, step: StepRecord, compiled_step: CompiledStep, inputs: JsonObject
    ) -> NewRun:
        """The run that a step calls, pinned as its caller is; not recorded yet.

        Raises:
            InputError: the inputs do not fit what the workflow declares.
            RefusedError: the calls are too deep.
            NotFoundError: what the run is pinned to is gone.
        """
        definition = compiled_step.definition
        if caller.depth + 1 > self._settings.max_call_depth:
            raise RefusedError(
                f"workflows call each other {caller.depth + 1} deep; the limit is "
                f"{self._settings.max_call_depth}",
                remedy="end the recursion earlier, or raise the setting max_call_depth",
            )
        workflow_id = caller.workflows[definition.workflow or ""]
        record = await self._pins.workflow_record(workflow_id)
        compiled = await self._pins.workflow(workflow_id)
        self._check_size(inputs, f"{record.name}@{record.version}")
        timeout = definition.timeout_seconds
        run = RunRecord(
            id=new_id("run"),
            workflow_id=workflow_id,
            workflow_name=record.name,
            workflow_version=record.version,
            trigger_type="workflow",
            trigger_data=inputs,
            mounts=caller.mounts,
            isolation=caller.isolation,
            priority=caller.priority,
            parent_run_id=caller.id,
            parent_step_id=step.step_id,
            parent_item_index=step.item_index,
            root_run_id=caller.root_run_id or caller.id,
            depth=caller.depth + 1,
            overrides={"timeout_seconds": timeout} if timeout is not None else {},
            created_at=now_text(),
            project_id=caller.project_id,
        )
        pinned = PinnedReferences(caller.agents, caller.workflows)
        return await self._new_run(run, compiled, pinned, inputs, {})

    async def _new_run(
        self,
        run: RunRecord,
        compiled: CompiledWorkflow,
        pinned: PinnedReferences,
        inputs: JsonObject,
        labels: Mapping[str, str],
    ) -> NewRun:
        """The run with all that follows from its inputs, and its steps."""
        definition = compiled.definition
        subject = f"{run.workflow_name}@{run.workflow_version}"
        checked = check_values(definition.inputs, inputs, subject=subject, kind="input")
        scope: dict[str, JsonValue] = {
            "inputs": checked,
            "trigger": inputs,
            "config": dict(definition.config),
            "run": {"id": run.id, "workflow": run.workflow_name, "started_at": None},
        }
        variables = compiled.evaluate_variables(scope)
        scope["variables"] = variables
        all_labels = checked_labels({**compiled.labels.evaluate(scope), **labels})
        concurrency = definition.concurrency
        key = None
        if concurrency is not None and compiled.concurrency_key is not None:
            text = compiled.concurrency_key.evaluate(scope)
            text = text if isinstance(text, str) else dump_bytes(text).decode()
            key = _checked_key(f"{run.workflow_name}:{text}", "a concurrency key")
        run = replace(
            run,
            inputs=await self._values.stored(checked),
            trigger_data=await self._values.stored(run.trigger_data),
            variables=await self._values.stored(variables),
            agents=dict(pinned.agents),
            workflows=dict(pinned.workflows),
            labels=all_labels,
            concurrency_key=key,
            concurrency_limit=concurrency.limit if concurrency is not None else None,
            runs_on=definition.worker_labels,
        )
        steps = tuple(
            StepRecord(
                id=new_id("step"),
                run_id=run.id,
                step_id=step,
                queued_at=run.created_at,
                project_id=run.project_id,
            )
            for step in compiled.steps
        )
        attributes = (
            *label_attributes(run.labels),
            *input_attributes(definition.search, checked),
        )
        return NewRun(run, steps, attributes)

    def _check_size(self, inputs: JsonObject, subject: str) -> None:
        size, limit = len(dump_bytes(inputs)), self._settings.max_input_bytes
        if size > limit:
            raise InputError(
                f"the input of {subject} has {size:,} bytes; the limit is {limit:,}",
                remedy="pass large data as a file, or raise SWARM_MAX_INPUT_BYTES",
            )


async def again(run: RunRecord, values: Values) -> RunRequest:
    """The request that would start the run again."""
    return RunRequest(
        workflow=f"{run.workflow_name}@{run.workflow_version}",
        inputs=await values.loaded(run.inputs),
        mounts=run.mounts,
        # A file that was imported may say anything: it does not take away a wall.
        isolation=Isolation.SANDBOX if run.imported_at else Isolation(run.isolation),
        trigger_type="manual" if run.trigger_type == "workflow" else run.trigger_type,
        labels=run.labels,
        priority=run.priority,
    )


def checked_labels(labels: Mapping[str, JsonValue]) -> dict[str, str]:
    """Labels as they are recorded.

    Raises:
        InvalidError: one cannot be a label's name, or is too long. (The store counts them.)
    """
    checked = {}
    for name, value in labels.items():
        text = value if isinstance(value, str) else dump_bytes(value).decode()
        fault = label_name_fault(name) or label_value_fault(name, text)
        if fault is not None:
            raise InvalidError(fault[0], remedy=fault[1])
        checked[name] = text
    return checked


def _checked_key(key: str | None, what: str) -> str | None:
    if key is not None and not 0 < len(key) <= MAX_KEY_CHARACTERS:
        raise InvalidError(f"{what} must have 1 to {MAX_KEY_CHARACTERS} characters")
    return key


def reopened_steps(
    steps: Iterable[StepRecord], compiled: CompiledWorkflow
) -> tuple[StepRecord, ...]:
    """The rows to reset when an ended run is taken up again.

    What failed, was cancelled or was never reached starts over, with its handlers and the steps of
    the run's actions; what succeeded or was skipped by its own condition stands.
    """
    rows = list(steps)
    over = {
        row.step_id
        for row in rows
        if row.item_index == NO_ITEM
        and (
            row.status in (StepState.FAILED, StepState.CANCELLED)
            or row.error_code is not None
            or row.step_id not in compiled.plan.dependencies
        )
    }
    guards = compiled.plan.guards
    for step_id in compiled.plan.dependencies:  # guards come before their handlers
        if guards.get(step_id) in over:
            over.add(step_id)
    return tuple(
        pending_step(row)
        for row in rows
        if row.step_id in over
        and not (row.item_index != NO_ITEM and row.status is StepState.SUCCEEDED)
    )


def pending_step(step: StepRecord) -> StepRecord:
    """The row of a step that starts over; its attempts go on being counted."""
    return replace(
        step,
        status=StepState.PENDING,
        started_at=None,
        completed_at=None,
        duration_ms=None,
        outputs=None,
        error=None,
        error_code=None,
        retry_count=0,
        child_run_id=None,
        invocation_id=None,
        wait_kind=None,
        wake_at=None,
    )
