"""Whether what a step gives fits what the agent or workflow that it calls declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.fields import FieldDefinition
from swarm.definitions.source import Location
from swarm.definitions.values import check_value, is_required
from swarm.definitions.workflow import StepDefinition, WorkflowDefinition
from swarm.expressions.expression import Reference
from swarm.expressions.names import listed
from swarm.expressions.shapes import Shape, field_shape, value_shape
from swarm.expressions.template import compile_template
from swarm.kernel.errors import ExpressionError, nearest_names
from swarm.kernel.json import JsonValue

ShapeOf = Callable[[Reference], Shape]
Finding = tuple[Location, str, str | None]
"""Where within the step something is wrong, what it is, and the remedy."""


@dataclass(frozen=True, slots=True)
class Called:
    """What a step calls, as far as it matters to the step."""

    title: str
    """``name@version``."""
    fields: Mapping[str, FieldDefinition]
    takes_any: bool
    """Whether it takes inputs that it does not declare."""
    secrets: frozenset[str]
    """The secrets that it requests."""


def called_agent(agent: AgentDefinition) -> Called:
    return Called(
        f"{agent.name}@{agent.version}",
        {field.name: field for field in agent.inputs},
        agent.additional_inputs,
        frozenset(agent.permissions.secrets),
    )


def called_workflow(workflow: WorkflowDefinition) -> Called:
    return Called(
        f"{workflow.name}@{workflow.version}",
        {field.name: field for field in workflow.inputs},
        False,
        frozenset(),
    )


def input_findings(step: StepDefinition, called: Called, of_path: ShapeOf) -> Iterator[Finding]:
    """Inputs that are not declared, are missing, or cannot be of the declared type.

    Args:
        step: whose inputs they are.
        called: what it calls.
        of_path: what is known of a path in the step's inputs.
    """
    for name, value in step.inputs.items():
        location = ("inputs", name)
        subject = f"input `{name}` of {called.title}"
        if name in called.fields:
            if (fault := misfit(value, called.fields[name], of_path)) is not None:
                inner, said = fault
                yield (*location, *inner), f"{subject} {said}", "give a value that fits"
        elif not called.takes_any:
            nearest = nearest_names(name, called.fields)
            offered = f"did you mean {' or '.join(nearest)}?"
            declared = f"declared: {listed(called.fields)}"
            yield location, f"{subject} is not declared", offered if nearest else declared
    for field in called.fields.values():
        if is_required(field) and field.name not in step.inputs:
            yield (
                ("inputs",),
                f"input `{field.name}` of {called.title} is missing in step `{step.id}`",
                f"add `{field.name}: ...` ({field.type}) to its inputs",
            )


def misfit(
    value: JsonValue, field: FieldDefinition, of_path: ShapeOf
) -> tuple[Location, str] | None:
    """Where in a value with expressions is what cannot fit a declaration, and why; or None."""
    try:
        template = compile_template(value, where="")
    except ExpressionError:
        return None  # told where it is checked
    if template.is_constant:
        constant = template.evaluate({})
        if constant is None and not is_required(field):
            return None
        fault = check_value(field, constant)
        return None if fault is None else ((), fault)
    return _misfit(value, field_shape(field), of_path, ())


def _misfit(
    value: JsonValue, wanted: Shape, of_path: ShapeOf, at: Location
) -> tuple[Location, str] | None:
    """Compare what is known of a value with what is wanted, and so within what is written out."""
    given = value_shape(value, of_path)
    if not fits(given.kind, wanted.kind):
        place = "".join(f"[{part!r}]" for part in at)
        said = f"must be of type {wanted.kind}, but this gives {given.kind}"
        return at, f"{place} {said}".strip()
    if isinstance(value, dict):
        for key, each in value.items():
            inner = wanted.parts.get(key)
            if inner is not None and (fault := _misfit(each, inner, of_path, (*at, key))):
                return fault
    if isinstance(value, list) and wanted.items is not None:
        for index, each in enumerate(value):
            if (fault := _misfit(each, wanted.items, of_path, (*at, index))) is not None:
                return fault
    return None


def fits(given: str | None, wanted: str | None) -> bool:
    """Whether a value of one type may be given where another is declared; None is any type."""
    return (
        given is None
        or wanted is None
        or given == wanted
        or (given, wanted) == ("integer", "number")
    )
