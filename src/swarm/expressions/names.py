"""The names that expressions of a workflow can use, and what is wrong with a name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.workflow import (
    ActionList,
    PlacedStep,
    StepDefinition,
    WaitDefinition,
    WorkflowDefinition,
)
from swarm.expressions.expression import Reference
from swarm.expressions.shapes import (
    BOOLEAN,
    INTEGER,
    STRING,
    UNKNOWN,
    Shape,
    array_of,
    field_shape,
    fields_shape,
    object_of,
    value_shape,
)
from swarm.kernel.errors import nearest_names

BEFORE_STEPS: Final = frozenset({"inputs", "trigger", "config", "variables", "run"})
WITH_STEPS: Final = BEFORE_STEPS | {"steps"}
ALL_ROOTS: Final = WITH_STEPS | {"secrets", "error", "item", "index"}

_RUN: Final = object_of({"id": STRING, "workflow": STRING, "started_at": STRING})
_ERROR: Final = object_of({"message": STRING, "code": STRING, "step": STRING})
_STEP_ERROR: Final = object_of({"message": STRING, "code": STRING})
_ITEM_ERRORS: Final = array_of(object_of({"index": INTEGER, "message": STRING, "code": STRING}))
_MAX_NAMES: Final = 20
"""Names that a message lists."""

_WHY_NOT: Final = {
    "steps": "it is evaluated when the run is created, before any step",
    "error": "it is there only in steps that handle an error, in `on_error` and in `on_cancel`",
    "item": "it is there only in `for_each` steps, in their inputs and waits",
    "index": "it is there only in `for_each` steps, in their inputs and waits",
    "secrets": "secrets may be used only in the inputs of steps that call an agent",
}

Fault = tuple[str, str | None]
"""What is wrong, and the remedy."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression stands."""

    roots: frozenset[str]
    """The names that it can use."""
    step: str | None = None
    """The step that it belongs to."""
    actions: ActionList | None = None
    """The list of actions that it belongs to."""
    position: int = 0
    """Which of its actions it belongs to."""
    item: Shape = UNKNOWN
    """What is known of `item`."""

    def with_items(self, item: Shape) -> Place:
        """The same place, evaluated once for each item."""
        return replace(self, roots=self.roots | {"item", "index"}, item=item)


class Names:
    """All that is declared in one workflow."""

    def __init__(
        self,
        workflow: WorkflowDefinition,
        agents: Mapping[str, AgentDefinition],
        workflows: Mapping[str, WorkflowDefinition],
    ) -> None:
        """
        Args:
            workflow: whose names they are.
            agents: what is known of the agents that it calls, by reference.
            workflows: what is known of the workflows that it calls, by reference.
        """
        self._placed = {placed.step.id: placed for placed in workflow.placed_steps()}
        self._agents = agents
        self._workflows = workflows
        self._called: dict[str, Shape] = {}
        self._inputs = fields_shape(workflow.inputs)
        self._config = object_of(dict.fromkeys(workflow.config, UNKNOWN))
        self._variables = dict.fromkeys(workflow.variables, UNKNOWN)
        for name, value in workflow.variables.items():
            self._variables[name] = value_shape(
                value, lambda path: self.shape(path, Place(BEFORE_STEPS))
            )

    def fault(self, reference: Reference, place: Place) -> Fault | None:
        """What is wrong with a reference at a place, or None."""
        root = reference[0]
        if root not in place.roots:
            return _root_fault(root, place)
        if root == "steps":
            return self._step_fault(reference, place)
        what = {
            "inputs": "the workflow has no input",
            "config": "the workflow's config has no",
            "variables": "the workflow has no variable",
        }.get(root)
        return _part_fault(reference, 1, self._root_shape(root, place), what)

    def need_fault(self, step: str, place: Place) -> Fault | None:
        """What is wrong with waiting for a step, or None."""
        fault = self._visibility_fault(("steps", step), place)
        if fault is None or step in self._placed:
            return fault
        return f"there is no step `{step}` to wait for", (fault[1] or "").replace("steps.", "")

    def shape(self, path: Reference | None, place: Place) -> Shape:
        """What is known of the value that a path leads to."""
        if path is None or path[0] not in place.roots:
            return UNKNOWN
        shape, rest = self._root_shape(path[0], place), path[1:]
        if path[0] == "steps":
            if len(path) < 3 or path[1] not in self._placed:
                return UNKNOWN
            shape, rest = self._step_shape(self._placed[path[1]].step), path[2:]
        for name in rest:
            shape = shape.parts.get(name, UNKNOWN)
        return shape

    def outputs(self, step: StepDefinition) -> Shape:
        """What is known of one step's outputs (of one item's, for a step with `for_each`)."""
        if step.wait is not None:
            return _wait_shape(step.wait)
        key = f"agent {step.agent}" if step.agent is not None else f"workflow {step.workflow}"
        if key not in self._called:
            self._called[key] = self._called_shape(step)
        return self._called[key]

    def _called_shape(self, step: StepDefinition) -> Shape:
        agent = self._agents.get(step.agent or "")
        if agent is not None:
            return fields_shape(agent.outputs, is_closed=not agent.additional_outputs)
        called = self._workflows.get(step.workflow or "")
        if called is None:
            return Shape("object")
        declared = {each.name: field_shape(each) for each in called.output_fields}
        return object_of({name: declared.get(name, UNKNOWN) for name in called.output_values})

    def _step_shape(self, step: StepDefinition) -> Shape:
        outputs = self.outputs(step)
        parts = {"outputs": outputs, "error": _STEP_ERROR, "status": STRING}
        if step.for_each is not None:
            parts |= {"outputs": array_of(outputs), "errors": _ITEM_ERRORS}
        return object_of(parts)

    def _root_shape(self, root: str, place: Place) -> Shape:
        if root == "variables":
            return object_of(self._variables)
        return {
            "inputs": self._inputs,
            "config": self._config,
            "run": _RUN,
            "error": _ERROR,
            "item": place.item,
            "index": INTEGER,
        }.get(root, UNKNOWN)

    def _step_fault(self, reference: Reference, place: Place) -> Fault | None:
        if len(reference) == 1:  # refused already when it was compiled
            return None
        fault = self._visibility_fault(reference, place)
        if fault is not None or len(reference) == 2:
            return fault
        step = self._placed[reference[1]].step
        shape = self._step_shape(step)
        if reference[2] not in shape.parts:
            return self._unknown_part_of_step(reference, step, shape)
        if len(reference) == 3:
            return None
        if reference[2] != "outputs":
            return _part_fault(reference, 3, shape.parts[reference[2]], None)
        if step.for_each is not None:
            return _array_fault(reference, step)
        what = f"the step `{step.id}` ({self._named(step)}) has no output"
        return _part_fault(reference, 3, shape.parts["outputs"], what)

    def _visibility_fault(self, reference: Reference, place: Place) -> Fault | None:
        """What is wrong with the step that a reference names, or None."""
        name = reference[1]
        if name == place.step:
            return f"the step `{name}` uses its own result", "use another step's"
        placed = self._placed.get(name)
        if placed is None:
            seen = [each for each, other in self._placed.items() if _sees(place, other)]
            return _unknown(reference, 1, seen, "there is no step")
        if _sees(place, placed):
            return None
        return (
            f"the step `{name}` belongs to `{placed.actions}`, which is done later",
            f"use it only in later actions of `{placed.actions}`",
        )

    def _unknown_part_of_step(
        self, reference: Reference, step: StepDefinition, shape: Shape
    ) -> Fault | None:
        name, path = reference[2], ".".join(reference[:2])
        if name == "errors":
            return (
                f"`{path}` has no `errors`: it has no `for_each`",
                f"write {path}.error",
            )
        fault = _unknown(reference, 2, shape.parts, f"`{path}` has no")
        outputs = self.outputs(step)
        if fault is None or (outputs.is_closed and name not in outputs.parts):
            return fault
        if step.for_each is not None:
            return fault[0], _item_remedy(step.id, name)
        return fault[0], f"write {'.'.join((path, 'outputs', *reference[2:]))}"

    def _named(self, step: StepDefinition) -> str:
        """What a step calls, with its version where that is known."""
        called = self._agents.get(step.agent or "") or self._workflows.get(step.workflow or "")
        return step.target if called is None else f"{called.name}@{called.version}"


def _sees(place: Place, placed: PlacedStep) -> bool:
    """Whether what stands at ``place`` is evaluated when that step may have ended."""
    if placed.actions is None:
        return True
    return placed.actions == place.actions and int(placed.location[1]) <= place.position


def _wait_shape(wait: WaitDefinition) -> Shape:
    if wait.approval is not None:
        return object_of(
            {
                "approved": BOOLEAN,
                "by": STRING,
                "comment": STRING,
                "values": fields_shape(wait.approval.form),
                "answered_at": STRING,
            }
        )
    if wait.event is not None:
        texts = dict.fromkeys(("id", "name", "key", "received_at"), STRING)
        return object_of({**texts, "payload": UNKNOWN})
    return object_of({"woken_at": STRING})


def _array_fault(reference: Reference, step: StepDefinition) -> Fault | None:
    if reference[3].isdigit():
        return None
    return (
        f"`{'.'.join(reference[:3])}` is an array with the outputs of every item of `{step.id}`, "
        f"and has no `{reference[3]}`",
        _item_remedy(step.id, reference[3]),
    )


def _item_remedy(step: str, name: str) -> str:
    outputs = f"steps.{step}.outputs"
    return f"write {outputs}[0].{name}, or {outputs}|map(attribute='{name}') for all of them"


def _root_fault(root: str, place: Place) -> Fault:
    if root in ALL_ROOTS:
        remedies = {
            "steps": "use it in the inputs of a step",
            "secrets": "use it in the inputs of a step that calls an agent",
        }
        return f"`{root}` cannot be used here: {_WHY_NOT[root]}", remedies.get(root, "leave it out")
    known = sorted(place.roots)
    nearest = nearest_names(root, known)
    remedy = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(known)}"
    return f"there is no `{root}`", remedy


def _part_fault(reference: Reference, index: int, shape: Shape, what: str | None) -> Fault | None:
    """What is wrong with the parts of a reference from ``index`` on, in a value of that shape.

    Args:
        reference: the whole path.
        index: the first part that is not known to be there.
        shape: what is known of the value whose part it is.
        what: how to say that there is no such first part; by its path when None.
    """
    for at in range(index, len(reference)):
        name, whole = reference[at], ".".join(reference[:at])
        if shape.is_scalar:
            return f"`{whole}` is of type {shape.kind} and has no `{name}`", f"write {whole}"
        if shape.kind == "array":
            if name.isdigit():
                return None
            remedy = f"write {whole}[0].{name}, or {whole}|map(attribute='{name}') for all of them"
            return f"`{whole}` is an array and has no `{name}`", remedy
        if name not in shape.parts:
            if not shape.is_closed:
                return None
            said = what if what is not None and at == index else f"`{whole}` has no"
            return _unknown(reference, at, shape.parts, said)
        shape = shape.parts[name]
    return None


def _unknown(reference: Reference, index: int, known: Collection[str], what: str) -> Fault | None:
    name = reference[index]
    if name in known:
        return None
    nearest = nearest_names(name, known)
    if nearest:
        offered = [
            ".".join((*reference[:index], each, *reference[index + 1 :])) for each in nearest
        ]
        return f"{what} `{name}`", f"did you mean {' or '.join(offered)}?"
    return f"{what} `{name}`", f"there is: {listed(sorted(known))}"


def listed(names: Collection[str]) -> str:
    """Names for a message; of many, the first ones."""
    shown = list(names)[:_MAX_NAMES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return (", ".join(shown) or "nothing") + more
