"""A workflow made ready to run: its plan and its expressions, compiled once per digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.definitions.loading import workflow_from_json
from swarm.definitions.workflow import NotifyDefinition, StepDefinition, WorkflowDefinition
from swarm.engine.plan import Plan
from swarm.engine.secrets import SecretLeaf, secret_leaves
from swarm.expressions.dependencies import step_dependencies, variable_order
from swarm.expressions.template import Template, compile_condition, compile_template
from swarm.kernel.json import JsonObject, JsonValue
from swarm.store.records import WorkflowRecord


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """One step and its expressions."""

    definition: StepDefinition
    inputs: Template
    when: Template | None
    steps_named: frozenset[str]
    """The steps whose results its expressions read."""
    secrets: tuple[SecretLeaf, ...]
    """Where its inputs hold secrets."""


@dataclass(frozen=True, slots=True)
class CompiledNotification:
    definition: NotifyDefinition
    message: Template


@dataclass(frozen=True, slots=True)
class CompiledWorkflow:
    """A workflow that can be planned and evaluated without reading its definition again."""

    definition: WorkflowDefinition
    plan: Plan
    steps: Mapping[str, CompiledStep]
    variables: tuple[tuple[str, Template], ...]
    outputs: Template
    on_error: tuple[CompiledNotification, ...]
    on_success: tuple[CompiledNotification, ...]

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

    def notifications(actions: Any, place: str) -> tuple[CompiledNotification, ...]:
        return tuple(
            CompiledNotification(action.notify, compiled(action.notify.message, place))
            for action in actions
            if action.notify is not None
        )

    steps = {step.id: _compile_step(step, subject, fuel) for step in definition.steps}
    plan = Plan.of(
        step_dependencies(definition),
        conditional=(step.id for step in definition.steps if step.when is not None),
        tolerant=(step.id for step in definition.steps if step.on_error == "continue"),
    )
    return CompiledWorkflow(
        definition=definition,
        plan=plan,
        steps=steps,
        variables=tuple(
            (name, compiled(definition.variables[name], f"variable {name}"))
            for name in variable_order(definition)
        ),
        outputs=compiled(definition.output_values, "outputs"),
        on_error=notifications(definition.on_error, "on_error"),
        on_success=notifications(definition.on_success, "on_success"),
    )


def _compile_step(step: StepDefinition, subject: str, fuel: int) -> CompiledStep:
    where = f"{subject}, step {step.id}"
    inputs = compile_template(dict(step.inputs), where=f"{where}, inputs", fuel=fuel)
    named = named_steps(inputs)
    when = None
    if step.when is not None:
        when = compile_condition(step.when, where=f"{where}, when", fuel=fuel)
        named |= named_steps(when)
    return CompiledStep(step, inputs, when, named, tuple(secret_leaves(step.inputs)))


def named_steps(template: Template) -> frozenset[str]:
    """The steps that a template's expressions read."""
    return frozenset(
        reference[1]
        for reference in template.references
        if reference[0] == "steps" and len(reference) > 1
    )
