"""``workflow.yaml``: a DAG of steps, each calling an agent or a workflow, or waiting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import Field

from swarm.definitions.fields import (
    MAX_WORKER_LABELS,
    Definition,
    FieldDefinition,
    Identifier,
    Name,
    Version,
    WorkerLabel,
)
from swarm.definitions.labels import MAX_SEARCH_INPUTS
from swarm.kernel.json import JsonObject, JsonValue

ActionList: TypeAlias = Literal["on_error", "on_success", "on_cancel"]


class RetryDefinition(Definition):
    """How often a failed step is tried again, and after how long."""

    attempts: int = Field(3, ge=1, le=100, description="Attempts in all, the first included.")
    delay_seconds: float = Field(1.0, ge=0, description="Pause before the second attempt.")
    backoff: float = Field(2.0, ge=1, description="What each further pause is multiplied by.")
    max_delay_seconds: float = Field(60.0, ge=0, description="The longest pause.")
    jitter: float = Field(
        0.1, ge=0, le=1, description="Share of the pause that is drawn at random, either way."
    )
    on: tuple[str, ...] = Field(
        (), description="Error codes to retry (`timeout`, `oom`, `error`, ...); all when empty."
    )


class ApprovalDefinition(Definition):
    """A person's decision to wait for."""

    message: str = Field(description="What is to be decided; may hold `${...}`.")
    form: tuple[FieldDefinition, ...] = Field(
        (), description="What the person fills in; given as the step's `outputs.values`."
    )
    deadline: float | str | None = Field(
        None,
        description="How long it may take: seconds, or text such as `90m` or `2d12h`; may be "
        "`${...}`. Without an answer by then the step fails with the code `deadline`.",
    )


class EventWaitDefinition(Definition):
    """An event to wait for; one that came after the run was created counts too."""

    name: str = Field(
        min_length=1, max_length=200, description="The event's name, without expressions."
    )
    key: str | None = Field(
        None, description="Only events with this key, such as an order's number; may be `${...}`."
    )
    deadline: float | str | None = Field(
        None,
        description="How long it may take, as for an approval; then the step fails with the code "
        "`deadline`.",
    )


class WaitDefinition(Definition):
    """What a step waits for instead of calling anything; exactly one of these."""

    duration: float | str | None = Field(
        None, description="A time: seconds, or text such as `90m` or `2d12h`; may be `${...}`."
    )
    until: str | None = Field(
        None,
        description="A date with time and time zone (`2030-01-31T09:00:00+01:00`), or `${...}` "
        "that gives one.",
    )
    approval: ApprovalDefinition | None = Field(None, description="A person's decision.")
    event: EventWaitDefinition | None = Field(None, description="An event.")


class CacheDefinition(Definition):
    """Use again what an earlier step with the same agent and the same inputs gave."""

    ttl_seconds: float = Field(
        86_400.0, gt=0, description="How long a result may be used again, in seconds."
    )


class ErrorHandlerDefinition(Definition):
    """Steps to run when a step has failed, and how the run goes on after them."""

    steps: tuple[StepDefinition, ...] = Field(
        min_length=1, description="Run when the step has failed; they may use `error`."
    )
    then: Literal["fail", "continue"] = Field(
        "fail", description="Whether the failure ends the run all the same."
    )


class StepDefinition(Definition):
    """A node of the DAG: one call of an agent or workflow, or a wait."""

    id: Identifier = Field(description="How expressions call the step.")
    name: str = Field("", description="A title for people.")
    agent: str | None = Field(
        None,
        description="The agent to call: `name` (the highest version registered) or `name@version`.",
    )
    workflow: str | None = Field(
        None, description="The workflow to run instead of an agent: `name` or `name@version`."
    )
    wait: WaitDefinition | None = Field(None, description="What to wait for instead.")
    inputs: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="The agent's or workflow's inputs; strings may hold `${...}`.",
    )
    needs: tuple[Identifier, ...] = Field(
        (), description="Steps to wait for, besides those that its expressions name."
    )
    when: str | bool | None = Field(
        None, description="`${...}`; the step is skipped when this is false."
    )
    for_each: str | tuple[JsonValue, ...] | None = Field(
        None,
        description="An array, or `${...}` that gives one: the step runs once for each item, which "
        "its inputs (or its `wait`) see as `item`, with `index`. Its outputs are an array in the "
        "order of the items.",
    )
    max_parallel: int | None = Field(
        None, ge=1, le=1_000, description="Items of `for_each` that run at once."
    )
    retry: RetryDefinition | None = Field(
        None, description="Whether and when it is tried again; not at all when not given."
    )
    timeout_seconds: float | None = Field(
        None, gt=0, description="Time limit of each attempt; the agent's own when not given."
    )
    on_error: Literal["fail", "continue"] | ErrorHandlerDefinition = Field(
        "fail",
        description="What a failure does: `fail` ends the run, `continue` leaves it in "
        "`steps.<id>.error`, and `{steps: [...], then: ...}` runs other steps first.",
    )
    isolation: Literal["sandbox", "microvm"] | None = Field(
        None, description="The least isolation for this step."
    )
    network: tuple[str, ...] | None = Field(
        None, description="Narrows the agent's granted hosts to these."
    )
    cache: CacheDefinition | None = Field(
        None, description="Whether an earlier result for the same inputs may be used again."
    )
    runs_on: tuple[WorkerLabel, ...] = Field(
        (),
        max_length=MAX_WORKER_LABELS,
        description="Labels that the worker must have, such as `gpu`, besides those of the "
        "workflow: a run is driven by one worker, which has the labels of all its steps.",
    )

    @property
    def tolerates_failure(self) -> bool:
        """Whether the run survives a failure of the step."""
        if isinstance(self.on_error, ErrorHandlerDefinition):
            return self.on_error.then == "continue"
        return self.on_error == "continue"

    @property
    def handlers(self) -> tuple[StepDefinition, ...]:
        """The steps that run when this one has failed."""
        is_handled = isinstance(self.on_error, ErrorHandlerDefinition)
        return self.on_error.steps if is_handled else ()  # type: ignore[union-attr]

    @property
    def target(self) -> str:
        """What it calls or waits for, for people."""
        if self.wait is None:
            return self.agent or self.workflow or ""
        kinds = ("duration", "until", "approval", "event")
        kind = next((each for each in kinds if getattr(self.wait, each) is not None), "nothing")
        return f"wait: {kind}"


ErrorHandlerDefinition.model_rebuild()  # it names steps, which name it


class NotifyDefinition(Definition):
    """A message to send when a run ends."""

    type: Literal["log"] = Field(description="Where it goes.")
    message: str = Field(description="Its text; may hold `${...}`.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="How grave.")


class ActionDefinition(Definition):
    """One thing to do when a run has failed, succeeded or been cancelled: exactly one of these."""

    notify: NotifyDefinition | None = Field(None, description="A message to send.")
    step: StepDefinition | None = Field(
        None, description="A step to run; the actions of a list run one after the other."
    )


class ConcurrencyDefinition(Definition):
    """How many runs with the same key may go on at once; further ones wait as `pending`."""

    key: str = Field(
        "",
        description="What they share, as one value; may be `${...}` of inputs, config, variables "
        "and trigger. All runs of the workflow when empty.",
    )
    limit: int = Field(1, ge=1, le=10_000, description="Runs at once.")


class BudgetDefinition(Definition):
    """The most that a run may use, with all the workflows that it calls."""

    usd: float | None = Field(None, gt=0, description="Money, in US dollars.")
    tokens: int | None = Field(None, ge=1, description="Tokens of models, in and out.")
    vm_seconds: float | None = Field(None, gt=0, description="Time in sandboxes, in seconds.")


class TriggerDefinition(Definition):
    """What starts the workflow."""

    type: Literal["manual"] = Field("manual", description="Only by hand or by the API.")


class OutputDefinition(FieldDefinition):
    """A declared output of a workflow."""

    value: JsonValue = Field(description="What it is; strings may hold `${...}`.")


class WorkflowDefinition(Definition):
    """A whole workflow."""

    name: Name = Field(description="The workflow's name.")
    version: Version = Field(description="Semantic version of the workflow.")
    description: str = Field("", description="One sentence that says what it does.")
    author: str = Field("", description="Who wrote it.")
    trigger: TriggerDefinition = Field(
        default_factory=TriggerDefinition, description="What starts it."
    )
    inputs: tuple[FieldDefinition, ...] = Field((), description="What a run takes.")
    outputs: dict[Identifier, JsonValue] | tuple[OutputDefinition, ...] = Field(
        default_factory=dict,
        description="What a run gives: values by name, or a list of declared outputs, each with "
        "its `value`; strings may hold `${...}`.",
    )
    config: JsonObject = Field(default_factory=dict, description="Values a project may override.")
    variables: dict[Identifier, JsonValue] = Field(
        default_factory=dict,
        description=(
            "Named values, evaluated when the run is created; each may use inputs, config, "
            "trigger and variables above it."
        ),
    )
    steps: tuple[StepDefinition, ...] = Field(min_length=1, description="The DAG's nodes.")
    on_error: tuple[ActionDefinition, ...] = Field((), description="Done when a run fails.")
    on_success: tuple[ActionDefinition, ...] = Field((), description="Done when a run succeeds.")
    on_cancel: tuple[ActionDefinition, ...] = Field(
        (), description="Done when a run is cancelled, once its sandboxes are gone."
    )
    timeout_seconds: float | None = Field(
        None, gt=0, description="Time limit of the whole run, from its start."
    )
    concurrency: ConcurrencyDefinition | None = Field(
        None, description="How many of its runs may go on at once."
    )
    priority: int = Field(
        0, ge=-100, le=100, description="Runs and steps of a higher priority get a place first."
    )
    budget: BudgetDefinition | None = Field(
        None, description="The most that a run may use; shared with the workflows it calls."
    )
    search: tuple[Identifier, ...] = Field(
        (), max_length=MAX_SEARCH_INPUTS, description="Inputs by whose values runs can be found."
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="Labels of every run, to find runs by; values may be `${...}` of inputs, "
        "config, variables and trigger.",
    )
    runs_on: tuple[WorkerLabel, ...] = Field(
        (),
        max_length=MAX_WORKER_LABELS,
        description="Labels that a worker must have to drive its runs (`swarm worker --label "
        "gpu`); looked at where several machines share a PostgreSQL database.",
    )
    tags: tuple[str, ...] = Field((), description="Words to find it by.")

    @property
    def worker_labels(self) -> tuple[str, ...]:
        """What a worker must have to drive a run: its labels, and those of all its steps."""
        of_steps = (label for one in self.placed_steps() for label in one.step.runs_on)
        return tuple(sorted({*self.runs_on, *of_steps}))

    @property
    def output_values(self) -> dict[str, JsonValue]:
        """What the outputs are made of, by name."""
        if isinstance(self.outputs, dict):
            return dict(self.outputs)
        return {output.name: output.value for output in self.outputs}

    @property
    def output_fields(self) -> tuple[FieldDefinition, ...]:
        """The declared outputs; none where they are given by name alone."""
        return () if isinstance(self.outputs, dict) else self.outputs

    def placed_steps(self) -> Iterator[PlacedStep]:
        """Every step: those of the DAG, their handlers right after them, and those of actions."""
        for index, step in enumerate(self.steps):
            yield from _with_handlers(step, ("steps", index), None, None)
        for name in ACTION_LISTS:
            for index, action in enumerate(getattr(self, name)):
                if action.step is not None:
                    yield from _with_handlers(action.step, (name, index, "step"), None, name)


ACTION_LISTS: tuple[ActionList, ...] = ("on_error", "on_success", "on_cancel")


@dataclass(frozen=True, slots=True)
class PlacedStep:
    """A step and where it stands in its workflow."""

    step: StepDefinition
    location: tuple[str | int, ...]
    guard: str | None
    """The step whose failure it handles; None for the others."""
    actions: ActionList | None
    """The list of actions that it belongs to; None for the steps of the DAG."""


def _with_handlers(
    step: StepDefinition,
    location: tuple[str | int, ...],
    guard: str | None,
    actions: ActionList | None,
) -> Iterator[PlacedStep]:
    yield PlacedStep(step, location, guard, actions)
    for index, handler in enumerate(step.handlers):
        at = (*location, "on_error", "steps", index)
        yield from _with_handlers(handler, at, step.id, actions)
