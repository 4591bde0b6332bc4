"""Which steps a step waits for."""

from __future__ import annotations

from swarm.definitions.workflow import StepDefinition, WorkflowDefinition
from swarm.expressions.template import compile_condition, compile_template


def step_dependencies(workflow: WorkflowDefinition) -> dict[str, frozenset[str]]:
    """The steps that each step waits for: those its ``inputs`` and ``when`` name, and ``needs``.

    In the order of the steps; names are not checked here (``checking.check_workflow`` does that).

    Raises:
        ExpressionError: an expression is malformed.
    """
    return {step.id: dependencies_of(step) for step in workflow.steps}


def dependencies_of(step: StepDefinition) -> frozenset[str]:
    """The steps that one step waits for.

    Raises:
        ExpressionError: an expression is malformed.
    """
    templates = [compile_template(step.inputs, where=f"step {step.id}, inputs")]
    if step.when is not None:
        templates.append(compile_condition(step.when, where=f"step {step.id}, when"))
    named = {
        reference[1]
        for template in templates
        for reference in template.references
        if reference[0] == "steps" and len(reference) > 1
    }
    return frozenset(named.union(step.needs))
