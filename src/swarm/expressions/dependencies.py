"""Which steps a step waits for, and in which order variables are evaluated."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

from swarm.definitions.faults import shown_location
from swarm.definitions.workflow import StepDefinition, WorkflowDefinition
from swarm.expressions.cycles import shown_cycle
from swarm.expressions.parts import step_parts
from swarm.expressions.template import Template, compile_template
from swarm.kernel.errors import ExpressionError


def step_dependencies(workflow: WorkflowDefinition) -> dict[str, frozenset[str]]:
    """The steps that each step of the DAG waits for.

    Those are the steps that its expressions name, those in ``needs``, and, for a step that handles
    an error, the step whose failure it handles. In the order of ``workflow.placed_steps()``; steps
    of actions are not among them: they run one after the other once the DAG has ended. Names are
    not checked here (``checking.check_workflow`` does that).

    Raises:
        ExpressionError: an expression is malformed.
    """
    return {
        placed.step.id: (
            dependencies_of(placed.step)
            if placed.guard is None
            else dependencies_of(placed.step) | {placed.guard}
        )
        for placed in workflow.placed_steps()
        if placed.actions is None
    }


def variable_order(workflow: WorkflowDefinition) -> tuple[str, ...]:
    """The variables, each after those that it uses (as written, where that leaves a choice).

    A database may not keep the order in which they were written.

    Raises:
        ExpressionError: an expression is malformed, or the variables use each other in a cycle.
    """
    uses = {
        name: named([compile_template(value, where=f"variable {name}")], "variables")
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
    """The steps that one step names in any of its expressions, and those in its ``needs``.

    Raises:
        ExpressionError: an expression is malformed.
    """
    templates = (
        part.compile(f"step {step.id}, {shown_location(part.location)}")
        for part in step_parts(step)
    )
    return frozenset(named(templates, "steps").union(step.needs))


def named(templates: Iterable[Template], root: str) -> set[str]:
    """The names right below ``root`` that any of the templates reads."""
    return {name for template in templates for name in template.named(root)}
