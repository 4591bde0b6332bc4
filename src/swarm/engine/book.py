"""All that is known of a run while it is driven: its rows, results, items and scope."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from swarm.engine.compiled import CompiledWorkflow
from swarm.engine.ending import CANCELLED
from swarm.engine.items import ItemSet
from swarm.engine.plan import Progress
from swarm.engine.values import Values
from swarm.kernel.clock import now_text
from swarm.kernel.errors import InputError, RefusedError, SwarmError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.store.records import NO_ITEM, RunRecord, StepRecord, StepState


class RunBook:
    """The state of one run; only its driver's task touches it."""

    def __init__(self, run: RunRecord, workflow: CompiledWorkflow, values: Values) -> None:
        self.run = run
        self.workflow = workflow
        self.rows: dict[str, StepRecord] = {}
        """The steps' own rows, in the order of the definition."""
        self.items: dict[str, dict[int, StepRecord]] = {}
        """By step, the rows of items that were begun before this host took the run up."""
        self.sets: dict[str, ItemSet] = {}
        """The steps that are running over items."""
        self.results: dict[str, JsonObject] = {}
        """What expressions see of ended steps; large values as references."""
        self.progress = Progress(workflow.plan)
        self._values = values
        self._scope: dict[str, JsonValue] = {}

    async def load(self, rows: Iterable[StepRecord]) -> None:
        """Take over what the journal says of the run and its steps."""
        self._scope = {
            "inputs": await self._values.loaded(self.run.inputs),
            "trigger": await self._values.loaded(self.run.trigger_data),
            "config": dict(self.workflow.definition.config),
            "variables": await self._values.loaded(self.run.variables),
        }
        for row in rows:
            if row.item_index == NO_ITEM:
                self.rows[row.step_id] = row
            else:
                self.items.setdefault(row.step_id, {})[row.item_index] = row
        ended = {}
        for step_id, row in self.rows.items():
            if row.status.is_final:
                self.results[step_id] = step_result(row, self.items.pop(step_id, {}))
                if step_id in self.workflow.plan.dependencies:
                    ended[step_id] = row.status
        self.progress = Progress(self.workflow.plan, ended)

    def begin(self, started_at: str) -> None:
        """Fix when the run began, which expressions may ask."""
        run = self.run
        self._scope["run"] = {
            "id": run.id,
            "workflow": run.workflow_name,
            "started_at": started_at,
        }

    async def scope(
        self, steps: Iterable[str], extra: Mapping[str, JsonValue] | None = None
    ) -> dict[str, JsonValue]:
        """The names an expression sees; only the steps it reads, so that cost stays flat."""
        results = {step: await self._result(step) for step in steps if step in self.results}
        return {**self._scope, "steps": results, **(extra or {})}

    async def _result(self, step: str) -> JsonObject:
        result = self.results[step]
        outputs = result["outputs"]
        if isinstance(outputs, list):
            loaded: JsonValue = [await self._values.loaded(each) for each in outputs]
        else:
            loaded = await self._values.loaded(outputs)
        return result if loaded is outputs else {**result, "outputs": loaded}

    def end(self, row: StepRecord) -> list[str]:
        """Note that a step has ended; returns the steps that this made reachable."""
        step_id = row.step_id
        self.rows[step_id] = row
        items = self.sets.pop(step_id, None)
        self.results[step_id] = step_result(row) if items is None else items_result(row, items)
        if step_id not in self.workflow.plan.dependencies:
            return []
        return self.progress.end(step_id, row.status)

    def give_up(self, row: StepRecord) -> None:
        """Note that a step was never reached, or was left unfinished."""
        self.sets.pop(row.step_id, None)
        self.rows[row.step_id] = row
        self.results[row.step_id] = {"status": str(row.status), "outputs": {}, "error": None}

    def error_of(self, step_id: str) -> JsonObject:
        """``error`` as the handlers of a step see it."""
        row = self.rows[step_id]
        return {"message": row.error, "code": row.error_code, "step": step_id}

    @property
    def has_succeeded(self) -> bool:
        """Whether an action of a run that has succeeded has begun: nothing turns that round."""
        return any(
            isinstance(action, str) and self.rows[action].status is not StepState.PENDING
            for action in self.workflow.actions["on_success"]
        )

    def fatal(self) -> StepRecord | None:
        """The first step, in the order of the definition, whose failure has ended the run."""
        tolerant = self.workflow.plan.tolerant
        fatal = [
            self.rows[step_id]
            for step_id in self.workflow.plan.dependencies
            if self.rows[step_id].status is StepState.FAILED and step_id not in tolerant
        ]
        # Calls are cancelled when something else has failed: that is the cause.
        causes = (row for row in fatal if row.error_code != CANCELLED)
        return next(causes, next(iter(fatal), None))

    def all_results(self) -> JsonObject:
        """What ``step_results`` holds once the run has ended."""
        return {step: self.results[step] for step in self.rows if step in self.results}


def step_result(row: StepRecord, items: Mapping[int, StepRecord] | None = None) -> JsonObject:
    """What expressions and ``step_results`` see of an ended step; ``items`` are those it had."""
    outputs: JsonValue = row.outputs or {}
    result: JsonObject = {"status": str(row.status), "outputs": outputs, "error": None}
    if row.error is not None or row.status is StepState.FAILED:
        result["error"] = {"message": row.error, "code": row.error_code}
    if row.item_count is not None:
        found = items or {}
        result["outputs"] = [
            found[index].outputs if index in found else None for index in range(row.item_count)
        ]
        result["errors"] = [
            {"index": index, "message": item.error, "code": item.error_code}
            for index, item in sorted(found.items())
            if item.status is StepState.FAILED
        ]
    return result


def items_result(row: StepRecord, items: ItemSet) -> JsonObject:
    """The same, of a step whose items have just ended."""
    result = step_result(replace(row, item_count=None))
    errors = sorted(items.errors, key=lambda error: int(error["index"]))
    return {**result, "outputs": items.outputs, "errors": errors}


def failed_step(step: StepRecord, error: SwarmError) -> StepRecord:
    """A step that failed before any invocation, because its inputs cannot be had."""
    code = error.code
    if isinstance(error, InputError):
        code = "invalid_input"
    elif isinstance(error, RefusedError) and error.code != "budget":
        code = "refused"
    moment = now_text()
    return replace(
        step,
        status=StepState.FAILED,
        started_at=step.started_at or moment,
        completed_at=moment,
        duration_ms=0,
        error=str(error),
        error_code=code,
    )


def skipped_step(step: StepRecord, error_code: str | None = None) -> StepRecord:
    return replace(step, status=StepState.SKIPPED, completed_at=now_text(), error_code=error_code)


def cancelled_step(step: StepRecord, error_code: str = "cancelled") -> StepRecord:
    error = "the run was cancelled" if error_code == "cancelled" else None
    return replace(
        step,
        status=StepState.CANCELLED,
        completed_at=now_text(),
        error=error,
        error_code=error_code,
        wake_at=None,
    )
