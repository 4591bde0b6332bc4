"""Which workflows a workflow calls, and whether calling them can never end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from swarm.definitions.source import Location
from swarm.definitions.workflow import StepDefinition, WorkflowDefinition
from swarm.expressions.dependencies import step_dependencies
from swarm.kernel.errors import ExpressionError


@dataclass(frozen=True, slots=True)
class Call:
    """A step that calls a workflow."""

    step: str
    reference: str
    """The workflow, as the step names it."""
    location: Location
    is_certain: bool
    """Whether every run that goes well makes it."""


def calls(workflow: WorkflowDefinition) -> Iterator[Call]:
    """Every call of another workflow.

    A call is not certain if the step has a ``when`` or items that are known only in a run, if it
    waits for such a step, or if it handles an error or belongs to ``on_error`` or ``on_cancel``.
    """
    calling = [placed for placed in workflow.placed_steps() if placed.step.workflow is not None]
    if not calling:
        return
    certain = _certain_steps(workflow)
    for placed in calling:
        step = placed.step
        in_success = placed.actions == "on_success" and placed.guard is None
        is_certain = step.id in certain or (in_success and _is_certain(step))
        yield Call(step.id, step.workflow or "", (*placed.location, "workflow"), is_certain)


def endless_path(
    start: str, first: str, certain_calls: Mapping[str, list[str]]
) -> tuple[str, ...] | None:
    """The shortest way from ``start`` over ``first`` back to ``start``; None if there is none.

    Args:
        start: a workflow, as ``name@version``.
        first: a workflow that it certainly calls.
        certain_calls: what each workflow certainly calls.
    """
    came_from: dict[str, str] = {first: start}
    waiting = [first]
    for current in waiting:
        if current == start:
            path = [start]
            while (path := [came_from[path[0]], *path])[0] != start:
                pass
            return tuple(path)
        for called in certain_calls.get(current, []):
            if called not in came_from:
                came_from[called] = current
                waiting.append(called)
    return None


def _certain_steps(workflow: WorkflowDefinition) -> set[str]:
    """The steps of the DAG that every run which goes well runs."""
    steps = {placed.step.id: placed for placed in workflow.placed_steps() if placed.actions is None}
    certain: set[str] = set()
    try:
        needs = step_dependencies(workflow)
        for step in TopologicalSorter(needs).static_order():
            placed = steps.get(step)
            if placed is None or placed.guard is not None or not _is_certain(placed.step):
                continue
            if needs[step] <= certain:
                certain.add(step)
    except (ExpressionError, CycleError):
        return set()  # told where it is checked
    return certain


def _is_certain(step: StepDefinition) -> bool:
    """Whether nothing about the step itself says that it may not run."""
    is_known = step.for_each is None or (isinstance(step.for_each, tuple) and bool(step.for_each))
    return step.when in (None, True) and is_known
