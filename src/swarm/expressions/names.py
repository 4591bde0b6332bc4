"""The names that expressions of a workflow can use, and what is wrong with a name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.fields import FieldDefinition
from swarm.definitions.workflow import WorkflowDefinition
from swarm.expressions.expression import Reference
from swarm.kernel.errors import nearest_names

RUN_NAMES = ("id", "workflow", "started_at")
ERROR_NAMES = ("message", "code", "step")
STEP_NAMES = ("outputs", "error", "status")
STEP_ERROR_NAMES = ("message", "code")

BEFORE_STEPS = frozenset({"inputs", "trigger", "config", "variables", "run"})
WITH_STEPS = BEFORE_STEPS | {"steps"}
ALL_ROOTS = WITH_STEPS | {"secrets", "error", "item", "index"}

_WITH_PARTS = frozenset({"object", "array", "file", "directory"})
_WHY_NOT = {
    "steps": "it is evaluated when the run is created, before any step",
    "error": "it is there only in `on_error`",
    "item": "it is there only in `for_each`",
    "index": "it is there only in `for_each`",
    "secrets": "secrets may be used only in the inputs of steps",
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


class Names:
    """All that is declared in one workflow."""

    def __init__(
        self, workflow: WorkflowDefinition, agents: Mapping[str, AgentDefinition] | None
    ) -> None:
        self._inputs = {field.name: field for field in workflow.inputs}
        self._config = workflow.config
        self._variables = workflow.variables
        self._agents = {step.id: (agents or {}).get(step.agent or "") for step in workflow.steps}

    def fault(self, reference: Reference, place: Place) -> Fault | None:
        """What is wrong with a reference at a place, or None."""
        root = reference[0]
        if root not in place.roots:
            return _root_fault(root, place)
        if root == "steps":
            return self._step_fault(reference, place)
        if len(reference) == 1:
            return None
        if root == "inputs":
            return _field_fault(reference, 1, self._inputs, "the workflow has no input")
        if root == "config":
            return _unknown(reference, 1, self._config, "the workflow's config has no")
        if root == "variables":
            return _unknown(reference, 1, self._variables, "the workflow has no variable")
        if root == "run":
            return _unknown(reference, 1, RUN_NAMES, "`run` has no")
        if root == "error":
            return _unknown(reference, 1, ERROR_NAMES, "`error` has no")
        return None

    def field(self, path: Reference | None) -> FieldDefinition | None:
        """The declaration that a path leads to, where it leads to one."""
        if path is None:
            return None
        if len(path) == 2 and path[0] == "inputs":
            return self._inputs.get(path[1])
        if len(path) == 4 and path[0] == "steps" and path[2] == "outputs":
            agent = self._agents.get(path[1])
            return _by_name(agent.outputs).get(path[3]) if agent is not None else None
        return None

    def _step_fault(self, reference: Reference, place: Place) -> Fault | None:
        if len(reference) == 1:  # refused already when it was compiled
            return None
        step = reference[1]
        if step == place.step:
            return f"the step `{step}` uses its own result", "use another step's"
        if step not in self._agents:
            return _unknown(reference, 1, self._agents, "there is no step")
        if len(reference) == 2:
            return None
        fault = _unknown(reference, 2, STEP_NAMES, f"`steps.{step}` has no")
        if fault is not None:
            written = ".".join(("steps", step, "outputs", *reference[2:]))
            agent = self._agents[step]
            is_output = agent is None or _gives(agent, reference[2])
            return (fault[0], f"write {written}") if is_output else fault
        if len(reference) == 3:
            return None
        if reference[2] == "error":
            return _unknown(reference, 3, STEP_ERROR_NAMES, f"`steps.{step}.error` has no")
        agent = self._agents[step]
        if reference[2] == "status" or agent is None:
            return None
        outputs = _by_name(agent.outputs)
        if agent.additional_outputs and reference[3] not in outputs:
            return None  # known only once it has run
        what = f"the step `{step}` ({agent.name}@{agent.version}) has no output"
        return _field_fault(reference, 3, outputs, what)


def _gives(agent: AgentDefinition, name: str) -> bool:
    return agent.additional_outputs or name in _by_name(agent.outputs)


def _by_name(fields: Sequence[FieldDefinition]) -> dict[str, FieldDefinition]:
    return {field.name: field for field in fields}


def _root_fault(root: str, place: Place) -> Fault:
    if root in ALL_ROOTS:
        return f"`{root}` cannot be used here: {_WHY_NOT[root]}", (
            "use it in the inputs of a step" if root in ("steps", "secrets") else "leave it out"
        )
    known = sorted(place.roots)
    nearest = nearest_names(root, known)
    remedy = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(known)}"
    return f"there is no `{root}`", remedy


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
    there = ", ".join(sorted(known)) or "nothing"
    return f"{what} `{name}`", f"there is: {there}"


def _field_fault(
    reference: Reference, index: int, fields: Mapping[str, FieldDefinition], what: str
) -> Fault | None:
    fault = _unknown(reference, index, fields, what)
    if fault is not None or len(reference) == index + 1:
        return fault
    field = fields[reference[index]]
    if field.type in _WITH_PARTS:
        return None
    whole = ".".join(reference[: index + 1])
    return (
        f"`{whole}` is of type {field.type} and has no `{reference[index + 1]}`",
        f"write {whole}",
    )
