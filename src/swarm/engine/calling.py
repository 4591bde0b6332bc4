"""Steps that call a workflow: the run that is made for them, and what becomes of the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from swarm.engine.compiled import CompiledStep
from swarm.kernel.clock import now_text
from swarm.kernel.json import JsonObject
from swarm.store.records import NewRun, RunRecord, RunState, StepRecord, StepState


class Caller(Protocol):
    """What a driver asks of its process about the runs that its steps call."""

    async def new_run(
        self, caller: RunRecord, step: StepRecord, compiled: CompiledStep, inputs: JsonObject
    ) -> NewRun:
        """The run that a step of ``caller`` calls; not recorded yet.

        Raises:
            InputError: the inputs do not fit what the workflow declares.
            RefusedError: workflows call each other too deeply.
            NotFoundError: what the run is pinned to is gone.
        """
        ...

    async def start(self, run_id: str) -> None:
        """Drive it in this process, unless it has ended."""
        ...

    async def get(self, run_id: str) -> RunRecord:
        """The run as it is recorded."""
        ...

    async def owners(self, run_ids: Sequence[str]) -> dict[str, tuple[RunState, str | None]]:
        """The states and owners of runs."""
        ...

    async def cancel(self, run_id: str) -> None:
        """Cancel it and wait for its end."""
        ...


def calling_step(step: StepRecord, child: RunRecord, inputs: JsonObject) -> StepRecord:
    """The row of a step that begins to call ``child``."""
    moment = now_text()
    return replace(
        step,
        status=StepState.RUNNING,
        inputs=inputs,
        started_at=step.started_at or moment,
        attempt=step.attempt + 1,
        attempt_started_at=moment,
        child_run_id=child.id,
        error=None,
        error_code=None,
    )


def called_step(step: StepRecord, child: RunRecord) -> StepRecord:
    """The row of a step whose called run has ended."""
    succeeded = child.status is RunState.SUCCEEDED
    error = None
    if not succeeded:
        where = f", step {child.error_step}" if child.error_step else ""
        error = f"run {child.id} of {child.workflow_name}{where}: {child.error}"
    return replace(
        step,
        status=StepState.SUCCEEDED if succeeded else StepState.FAILED,
        outputs=child.outputs if succeeded else None,
        completed_at=now_text(),
        error=error,
        error_code=None if succeeded else child.error_code,
    )
