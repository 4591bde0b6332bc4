"""Which steps a step waits for, and in which order variables are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from swarm.definitions.workflow import StepDefinition, WorkflowDefinition
from swarm.expressions.cycles import shown_cycle
from swarm.expressions.template import Template, compile_condition, compile_template
from swarm.kernel.errors import ExpressionError


def step_dependencies(workflow: WorkflowDefinition) -> dict[str, frozenset[str]]:
    """The steps that each step waits for: those its ``inputs`` and ``when`` name, and ``needs``.

    In the order of the steps; names are not checked here (``checking.check_workflow`` does that).

    Raises:
        ExpressionError: an expression is malformed.
    """
    return {step.id: dependencies_of(step) for step in workflow.steps}


def variable_order(workflow: WorkflowDefinition) -> tuple[str, ...]:
    """The variables, each after those that it uses (as written, where that leaves a choice).

    A database may not keep the order in which they were written.

    Raises:
        ExpressionError: an expression is malformed, or the variables use each other in a cycle.
    """
    uses = {
        name: _named([compile_template(value, where=f"variable {name}")], "variables")
        for name, value in workflow.variables.items()
    }
    try:
        return tuple(TopologicalSorter(uses).static_order())
    except CycleError as error:
        cycle = tuple(reversed(error.args[1][1:]))
        raise ExpressionError(
            f"cycle of variables: {shown_cycle(cycle)}",
            where=f"variable {cycle[0]}",
            remedy="let one of them not use the next",
        ) from None


def dependencies_of(step: StepDefinition) -> frozenset[str]:
    """The steps that one step waits for.

    Raises:
        ExpressionError: an expression is malformed.
    """
    templates = [compile_template(step.inputs, where=f"step {step.id}, inputs")]
    if step.when is not None:
        templates.append(compile_condition(step.when, where=f"step {step.id}, when"))
    return frozenset(_named(templates, "steps").union(step.needs))


def _named(templates: Sequence[Template], root: str) -> set[str]:
    return {name for template in templates for name in template.named(root)}
