"""``workflow.yaml``: a DAG of steps, each calling an agent."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from swarm.definitions.fields import Definition, FieldDefinition, Identifier, Name, Version
from swarm.kernel.json import JsonObject, JsonValue


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


class StepDefinition(Definition):
    """A node of the DAG: one call of an agent, or as many as its retries allow."""

    id: Identifier = Field(description="How expressions call the step.")
    name: str = Field("", description="A title for people.")
    agent: str = Field(description="`name` (the highest version registered) or `name@version`.")
    inputs: dict[str, JsonValue] = Field(
        default_factory=dict, description="The agent's inputs; strings may hold `${...}`."
    )
    needs: tuple[Identifier, ...] = Field(
        (), description="Steps to wait for, besides those that its expressions name."
    )
    when: str | bool | None = Field(
        None, description="`${...}`; the step is skipped when this is false."
    )
    retry: RetryDefinition | None = Field(
        None, description="Whether and when it is tried again; not at all when not given."
    )
    timeout_seconds: float | None = Field(
        None, gt=0, description="Time limit of each attempt; the agent's own when not given."
    )
    on_error: Literal["fail", "continue"] = Field(
        "fail", description="Whether a failure ends the run, or is left in `steps.<id>.error`."
    )
    isolation: Literal["sandbox", "microvm"] | None = Field(
        None, description="The least isolation for this step."
    )
    network: tuple[str, ...] | None = Field(
        None, description="Narrows the agent's granted hosts to these."
    )


class NotifyDefinition(Definition):
    """A message to send when a run ends."""

    type: Literal["log"] = Field(description="Where it goes.")
    message: str = Field(description="Its text; may hold `${...}`.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="How grave.")


class ActionDefinition(Definition):
    """One thing to do when a run fails or succeeds."""

    notify: NotifyDefinition = Field(description="A message to send.")


class TriggerDefinition(Definition):
    """What starts the workflow."""

    type: Literal["manual"] = Field("manual", description="Only by hand or by the API.")


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
    outputs: dict[Identifier, JsonValue] = Field(
        default_factory=dict, description="What a run gives; strings may hold `${...}`."
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
    tags: tuple[str, ...] = Field((), description="Words to find it by.")
