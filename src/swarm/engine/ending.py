"""How a run ends: the verdict over its steps, and the outputs that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.definitions.values import check_values
from swarm.definitions.workflow import ActionList
from swarm.engine.compiled import CompiledWorkflow
from swarm.kernel.errors import InputError, SwarmError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.store.records import RunRecord, RunState, StepRecord

NOT_REACHED = "not_reached"
"""``error_code`` of a step that its run's end or failure kept from starting, or from ending."""
CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ends, before its actions are done."""

    status: RunState
    outputs: JsonObject | None = None
    error: str | None = None
    error_code: str | None = None
    error_step: str | None = None

    @property
    def actions(self) -> ActionList:
        """The list of actions that is done."""
        lists: dict[RunState, ActionList] = {
            RunState.SUCCEEDED: "on_success",
            RunState.CANCELLED: "on_cancel",
        }
        return lists.get(self.status, "on_error")

    def fields(self) -> dict[str, Any]:
        """The fields of the run's record that tell why it did not succeed."""
        return {
            "error": self.error,
            "error_code": self.error_code,
            "error_step": self.error_step,
        }

    def as_error(self) -> JsonObject:
        """``error`` as the expressions of actions see it."""
        return {"message": self.error, "code": self.error_code, "step": self.error_step}


CANCELLATION = Verdict(RunState.CANCELLED, None, "the run was cancelled", CANCELLED)


def timed_out(seconds: float) -> Verdict:
    """The verdict on a run that took too long."""
    return Verdict(
        RunState.FAILED, None, f"the run did not end within its {seconds:g} s", "timeout"
    )


def failed_by(step: StepRecord) -> Verdict:
    """The verdict on a run that a step's failure has ended."""
    return Verdict(RunState.FAILED, None, step.error, step.error_code, step.step_id)


def recorded_verdict(run: RunRecord) -> Verdict | None:
    """The verdict on a run that was being closed when its host died; None if there was none."""
    if run.error_code is None:
        return None
    status = RunState.CANCELLED if run.error_code == CANCELLED else RunState.FAILED
    return Verdict(status, None, run.error, run.error_code, run.error_step)


def with_outputs(
    workflow: CompiledWorkflow, run: RunRecord, scope: Mapping[str, JsonValue]
) -> Verdict:
    """The verdict on a run whose steps have all ended well: its outputs, or why there are none."""
    try:
        outputs = workflow.outputs.evaluate(scope)
        fields = workflow.definition.output_fields
        if fields:
            outputs = check_values(
                fields,
                outputs,
                subject=f"{run.workflow_name}@{run.workflow_version}",
                kind="output",
            )
    except InputError as error:
        return Verdict(RunState.FAILED, None, str(error), "bad_output")
    except SwarmError as error:
        return Verdict(RunState.FAILED, None, str(error), error.code)
    return Verdict(RunState.SUCCEEDED, outputs)
