"""A workflow made ready to run: its plan and its expressions, compiled once per digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from swarm.definitions.loading import workflow_from_json
from swarm.definitions.workflow import (
    ACTION_LISTS,
    NotifyDefinition,
    PlacedStep,
    StepDefinition,
    WaitDefinition,
    WorkflowDefinition,
)
from swarm.engine.plan import Plan
from swarm.engine.secrets import SecretLeaf, secret_leaves
from swarm.expressions.dependencies import step_dependencies, variable_order
from swarm.expressions.template import Template, compile_condition, compile_template
from swarm.kernel.json import JsonObject, JsonValue
from swarm.store.records import WorkflowRecord

WaitKind: TypeAlias = Literal["timer", "approval", "event"]
_Compile: TypeAlias = Callable[[Any, str], Template]


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """One step and its expressions."""

    definition: StepDefinition
    inputs: Template
    when: Template | None
    for_each: Template | None
    wait: CompiledWait | None
    steps_named: frozenset[str]
    """The steps whose results its expressions read."""
    secrets: tuple[SecretLeaf, ...]
    """Where its inputs hold secrets."""
    guard: str | None
    """The step whose failure it handles."""


@dataclass(frozen=True, slots=True)
class CompiledWait:
    """What a step waits for."""

    kind: WaitKind
    details: Template
    """Gives the fields of the definition: ``{duration | until | message, deadline | ...}``."""
    definition: WaitDefinition


@dataclass(frozen=True, slots=True)
class CompiledNotification:
    definition: NotifyDefinition
    message: Template


Action: TypeAlias = "CompiledNotification | str"
"""A message to send, or the id of a step to run."""


@dataclass(frozen=True, slots=True)
class CompiledWorkflow:
    """A workflow that can be planned and evaluated without reading its definition again."""

    definition: WorkflowDefinition
    plan: Plan
    steps: Mapping[str, CompiledStep]
    """Every step: those of the plan, and those of actions."""
    actions: Mapping[str, tuple[Action, ...]]
    """By the list that they belong to: ``on_error``, ``on_success``, ``on_cancel``."""
    variables: tuple[tuple[str, Template], ...]
    outputs: Template
    labels: Template
    concurrency_key: Template | None
    agents: frozenset[str]
    """The agents that its steps call, as written there."""
    workflows: frozenset[str]
    """The workflows that its steps call, as written there."""

    def evaluate_variables(self, scope: Mapping[str, JsonValue]) -> JsonObject:
        """The variables in order; each sees ``scope`` and the variables above it.

        Raises:
            ExpressionError: one cannot be evaluated.
        """
        values: JsonObject = {}
        for name, template in self.variables:
            values[name] = template.evaluate({**scope, "variables": values})
        return values


def compile_workflow(record: WorkflowRecord, fuel: int) -> CompiledWorkflow:
    """Compile a registered workflow; ``fuel`` bounds each expression.

    Raises:
        ExpressionError: an expression is malformed (registration would have refused it).
    """
    definition = workflow_from_json(record.definition)
    subject = f"workflow {record.name}@{record.version}"

    def compiled(value: Any, place: str) -> Template:
        return compile_template(value, where=f"{subject}, {place}", fuel=fuel)

    placed = list(definition.placed_steps())
    concurrency = definition.concurrency
    return CompiledWorkflow(
        definition=definition,
        plan=_plan(definition, placed),
        steps={
            one.step.id: _compile_step(one, f"{subject}, step {one.step.id}", fuel)
            for one in placed
        },
        actions={name: _compile_actions(definition, name, compiled) for name in ACTION_LISTS},
        variables=tuple(
            (name, compiled(definition.variables[name], f"variable {name}"))
            for name in variable_order(definition)
        ),
        outputs=compiled(definition.output_values, "outputs"),
        labels=compiled(dict(definition.labels), "labels"),
        concurrency_key=compiled(concurrency.key, "concurrency.key") if concurrency else None,
        agents=frozenset(one.step.agent for one in placed if one.step.agent is not None),
        workflows=frozenset(one.step.workflow for one in placed if one.step.workflow is not None),
    )


def _plan(definition: WorkflowDefinition, placed: list[PlacedStep]) -> Plan:
    planned = [one for one in placed if one.actions is None]
    return Plan.of(
        step_dependencies(definition),
        conditional=(one.step.id for one in planned if one.step.when is not None),
        tolerant=(one.step.id for one in planned if one.step.tolerates_failure),
        guards={one.step.id: one.guard for one in planned if one.guard is not None},
    )


def _compile_actions(
    definition: WorkflowDefinition, name: str, compiled: _Compile
) -> tuple[Action, ...]:
    actions: list[Action] = []
    for action in getattr(definition, name):
        if action.step is not None:
            actions.append(action.step.id)
        elif action.notify is not None:
            message = compiled(action.notify.message, name)
            actions.append(CompiledNotification(action.notify, message))
    return tuple(actions)


def _compile_step(placed: PlacedStep, where: str, fuel: int) -> CompiledStep:
    step = placed.step
    inputs = compile_template(dict(step.inputs), where=f"{where}, inputs", fuel=fuel)
    when = for_each = wait = None
    templates = [inputs]
    if step.when is not None:
        when = compile_condition(step.when, where=f"{where}, when", fuel=fuel)
        templates.append(when)
    if step.for_each is not None:
        items = step.for_each if isinstance(step.for_each, str) else list(step.for_each)
        for_each = compile_template(items, where=f"{where}, for_each", fuel=fuel)
        templates.append(for_each)
    if step.wait is not None:
        wait = _compile_wait(step.wait, f"{where}, wait", fuel)
        templates.append(wait.details)
    named = frozenset().union(*(named_steps(template) for template in templates))
    secrets = tuple(secret_leaves(step.inputs))
    return CompiledStep(step, inputs, when, for_each, wait, named, secrets, placed.guard)


def _compile_wait(wait: WaitDefinition, where: str, fuel: int) -> CompiledWait:
    kind: WaitKind = "timer"
    details: JsonObject = {"duration": wait.duration, "until": wait.until}
    if wait.approval is not None:
        kind = "approval"
        details = {"message": wait.approval.message, "deadline": wait.approval.deadline}
    elif wait.event is not None:
        kind = "event"
        event = wait.event
        details = {"name": event.name, "key": event.key, "deadline": event.deadline}
    return CompiledWait(kind, compile_template(details, where=where, fuel=fuel), wait)


def named_steps(template: Template) -> frozenset[str]:
    """The steps that a template's expressions read."""
    return template.named("steps")
