"""Creating runs, and the step rows of runs that are reopened or closed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from swarm.definitions.values import check_values
from swarm.engine.api import RunRequest
from swarm.engine.driver import NOT_REACHED
from swarm.engine.pins import Pins
from swarm.kernel.clock import now_text
from swarm.kernel.errors import InputError, RefusedError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject, dump_bytes
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation
from swarm.store.ports import RunJournal
from swarm.store.records import NewRun, RunRecord, StepRecord, StepState, WorkflowRecord


class RunCreator:
    """Checks a request, pins what it will use, and records the run."""

    def __init__(self, journal: RunJournal, pins: Pins, settings: Settings) -> None:
        self._journal = journal
        self._pins = pins
        self._settings = settings

    async def create(self, request: RunRequest, origin_run_id: str | None = None) -> RunRecord:
        """See :meth:`swarm.engine.api.Runs.create`."""
        record = await self._pins.resolve_workflow(request.workflow)
        subject = f"{record.name}@{record.version}"
        if not record.enabled:
            raise RefusedError(
                f"the workflow {subject} is disabled",
                remedy=f"`swarm workflow enable {record.name}`",
            )
        self._check_size(request.inputs, subject)
        compiled = await self._pins.workflow(record.id)
        inputs = check_values(
            compiled.definition.inputs, request.inputs, subject=subject, kind="input"
        )
        run = await self._record(record, request, inputs, origin_run_id)
        variables = compiled.evaluate_variables(
            {
                "inputs": inputs,
                "trigger": run.trigger_data,
                "config": dict(compiled.definition.config),
                "run": {"id": run.id, "workflow": run.workflow_name, "started_at": None},
            }
        )
        run = replace(run, variables=variables)
        steps = tuple(
            StepRecord(id=new_id("step"), run_id=run.id, step_id=step, queued_at=run.created_at)
            for step in compiled.steps
        )
        return await self._journal.create_run(NewRun(run, steps))

    async def create_again(self, run: RunRecord) -> RunRecord:
        """A new run of the same workflow version with the inputs of ``run``."""
        request = RunRequest(
            workflow=f"{run.workflow_name}@{run.workflow_version}",
            inputs=run.inputs,
            mounts=run.mounts,
            isolation=Isolation(run.isolation),
            trigger_type=run.trigger_type,
        )
        return await self.create(request, origin_run_id=run.id)

    async def _record(
        self,
        workflow: WorkflowRecord,
        request: RunRequest,
        inputs: JsonObject,
        origin_run_id: str | None,
    ) -> RunRecord:
        references = sorted(
            {step["agent"] for step in workflow.definition["steps"] if step["agent"]}
        )
        agents = {
            reference: (await self._pins.resolve_agent(reference)).id for reference in references
        }
        return RunRecord(
            id=new_id("run"),
            workflow_id=workflow.id,
            workflow_name=workflow.name,
            workflow_version=workflow.version,
            trigger_type=request.trigger_type,
            trigger_data=request.inputs,
            inputs=inputs,
            agents=agents,
            mounts=request.mounts,
            isolation=request.isolation,
            origin_run_id=origin_run_id,
            created_at=now_text(),
            project_id=workflow.project_id,
        )

    def _check_size(self, inputs: JsonObject, subject: str) -> None:
        size, limit = len(dump_bytes(inputs)), self._settings.max_input_bytes
        if size > limit:
            raise InputError(
                f"the input of {subject} has {size:,} bytes; the limit is {limit:,}",
                remedy="pass large data as a file, or raise SWARM_MAX_INPUT_BYTES",
            )


def reopened_steps(steps: Iterable[StepRecord]) -> tuple[StepRecord, ...]:
    """The rows to reset when an ended run is taken up again.

    What failed, was cancelled or was never reached starts over; what succeeded or was skipped by
    its own condition stands.
    """
    return tuple(
        replace(
            step,
            status=StepState.PENDING,
            started_at=None,
            completed_at=None,
            duration_ms=None,
            error=None,
            error_code=None,
            retry_count=0,
        )
        for step in steps
        if step.status in (StepState.FAILED, StepState.CANCELLED) or step.error_code == NOT_REACHED
    )


def closed_steps(steps: Iterable[StepRecord]) -> tuple[StepRecord, ...]:
    """The rows of a cancelled run's steps that had not ended."""
    return tuple(
        replace(
            step,
            status=StepState.CANCELLED,
            completed_at=now_text(),
            error="the run was cancelled",
            error_code="cancelled",
        )
        for step in steps
        if not step.status.is_final
    )
