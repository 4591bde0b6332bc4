"""What must hold in a definition beyond its structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.fields import MAX_WORKER_LABELS, FieldDefinition
from swarm.definitions.labels import (
    MAX_LABEL_VALUE,
    MAX_LABELS,
    label_name_fault,
    label_value_fault,
)
from swarm.definitions.source import Location, Source
from swarm.definitions.step_rules import action_problems, step_problems
from swarm.definitions.values import check_value, describe, schema_fault
from swarm.definitions.workflow import WorkflowDefinition
from swarm.kernel.errors import Problem, nearest_names

_WORDS = "and or not in is if else true false none null True False None loop self"
RESERVED_WORDS = frozenset(_WORDS.split())
"""Words of the expression language, which cannot name anything in it."""

SEARCHABLE = ("string", "integer", "number", "boolean")
"""Types of inputs by whose values runs can be found."""


def agent_problems(agent: AgentDefinition, source: Source) -> list[Problem]:
    """The problems of an agent's manifest whose structure is right."""
    return [
        *field_problems(agent.inputs, ("inputs",), source),
        *field_problems(agent.outputs, ("outputs",), source),
        *_runtime_problems(agent, source),
    ]


def workflow_problems(workflow: WorkflowDefinition, source: Source) -> list[Problem]:
    """The problems of a workflow whose structure is right, other than of its expressions."""
    return [
        *field_problems(workflow.inputs, ("inputs",), source),
        *_output_problems(workflow, source),
        *_reserved(workflow.variables, "variables", source),
        *_search_problems(workflow, source),
        *_label_problems(workflow, source),
        *_limit_problems(workflow, source),
        *_step_problems(workflow, source),
        *action_problems(workflow, source),
    ]


def field_problems(
    fields: Sequence[FieldDefinition], location: Location, source: Source
) -> Iterator[Problem]:
    """Doubled names, and defaults, enums and schemas that contradict the type."""
    seen: dict[str, int] = {}
    for index, field in enumerate(fields):
        at = (*location, index)
        kind = "field" if location[-1] == "form" else str(location[-1]).removesuffix("s")
        if field.name in seen:
            line, _ = source.position((*location, seen[field.name]))
            message = f"the {kind} `{field.name}` is declared twice (first on line {line})"
            yield source.problem((*at, "name"), message, "rename or remove one of them")
        seen.setdefault(field.name, index)
        if field.name in RESERVED_WORDS:
            yield _reserved_problem(field.name, (*at, "name"), source)
        yield from _value_problems(field, at, source)


def _value_problems(
    field: FieldDefinition, location: Location, source: Source
) -> Iterator[Problem]:
    broken = False
    if field.schema_ is not None and (fault := schema_fault(field.schema_)) is not None:
        broken = True
        yield source.problem(
            (*location, "schema"),
            f"the schema of `{field.name}` is no JSON Schema: {fault}",
            "see https://json-schema.org/draft/2020-12",
        )
    if field.enum is not None and not field.enum:
        message = f"the enum of `{field.name}` is empty, so nothing would be allowed"
        yield source.problem((*location, "enum"), message, "list the allowed values")
    plain = FieldDefinition(name=field.name, type=field.type)
    for index, value in enumerate(field.enum or ()):
        if (fault := check_value(plain, value)) is not None:
            broken = True
            yield source.problem(
                (*location, "enum", index),
                f"this value of the enum of `{field.name}` {fault}",
                "make it fit the type",
            )
    if not field.has_default or broken or (field.default is None and not field.required):
        return
    if field.type in ("file", "directory"):
        message = f"`{field.name}` cannot have a default: it is a {field.type}"
        yield source.problem((*location, "default"), message, "use `required: false`")
    elif (fault := check_value(field, field.default)) is not None:
        yield source.problem(
            (*location, "default"),
            f"the default of `{field.name}` {fault}",
            "make it fit the declaration",
        )


def _runtime_problems(agent: AgentDefinition, source: Source) -> Iterator[Problem]:
    runtime = agent.runtime
    location: Location = ("runtime", "entry")
    is_list = isinstance(runtime.entry, tuple)
    if runtime.type == "command" and (not is_list or not runtime.entry):
        yield source.problem(
            location,
            f"the entry of a command must be its list of arguments, got "
            f"{describe(list(runtime.entry) if is_list else runtime.entry)}",
            "write [./program, argument]; it is never given to a shell",
        )
    if runtime.type != "command" and (is_list or not runtime.entry):
        example = "main.py or module:function" if runtime.type == "python" else "main.js"
        yield source.problem(
            location, f"the entry of a {runtime.type} agent must be text", f"write {example}"
        )


def _output_problems(workflow: WorkflowDefinition, source: Source) -> Iterator[Problem]:
    if isinstance(workflow.outputs, dict):
        yield from _reserved(workflow.outputs, "outputs", source)
    else:
        yield from field_problems(workflow.outputs, ("outputs",), source)


def _step_problems(workflow: WorkflowDefinition, source: Source) -> Iterator[Problem]:
    seen: dict[str, Location] = {}
    for placed in workflow.placed_steps():
        step, at = placed.step, (*placed.location, "id")
        if step.id in seen:
            line, _ = source.position(seen[step.id])
            message = f"the step id `{step.id}` is used twice (first on line {line})"
            yield source.problem(at, message, "rename one of them")
        seen.setdefault(step.id, placed.location)
        if step.id in RESERVED_WORDS:
            yield _reserved_problem(step.id, at, source)
        yield from step_problems(placed, source)
        if step.wait is not None and step.wait.approval is not None:
            form = (*placed.location, "wait", "approval", "form")
            yield from field_problems(step.wait.approval.form, form, source)


def _search_problems(workflow: WorkflowDefinition, source: Source) -> Iterator[Problem]:
    fields = {field.name: field for field in workflow.inputs}
    for index, name in enumerate(workflow.search):
        at = ("search", index)
        if name in workflow.search[:index]:
            yield source.problem(at, f"`{name}` stands twice in `search`", "remove one of them")
        elif name not in fields:
            nearest = nearest_names(name, fields)
            remedy = (
                f"did you mean {' or '.join(nearest)}?"
                if nearest
                else f"its inputs: {', '.join(fields) or 'none'}"
            )
            yield source.problem(at, f"the workflow has no input `{name}` to search by", remedy)
        elif fields[name].type not in SEARCHABLE:
            yield source.problem(
                at,
                f"runs cannot be found by `{name}`, which is of type {fields[name].type}",
                f"use inputs of type {', '.join(SEARCHABLE)}",
            )


def _label_problems(workflow: WorkflowDefinition, source: Source) -> Iterator[Problem]:
    if len(workflow.labels) > MAX_LABELS:
        message = f"there are {len(workflow.labels)} labels; a run may have {MAX_LABELS}"
        yield source.problem(("labels",), message, "remove some")
    for name, value in workflow.labels.items():
        fault = label_name_fault(name)
        if fault is None and "${" not in value:
            fault = label_value_fault(name, value)
        if fault is not None:
            yield source.problem(("labels", name), *fault)


def _limit_problems(workflow: WorkflowDefinition, source: Source) -> Iterator[Problem]:
    if len(workflow.worker_labels) > MAX_WORKER_LABELS:
        yield source.problem(
            ("runs_on",),
            f"the workflow and its steps ask for {len(workflow.worker_labels)} labels; a worker "
            f"has at most {MAX_WORKER_LABELS}",
            "let steps that need other machines be workflows of their own",
        )
    budget = workflow.budget
    if budget is not None and (budget.usd, budget.tokens, budget.vm_seconds) == (None, None, None):
        yield source.problem(
            ("budget",), "the budget limits nothing", "add `usd`, `tokens` or `vm_seconds`"
        )
    key = workflow.concurrency.key if workflow.concurrency is not None else ""
    if "${" not in key and len(key) > MAX_LABEL_VALUE:
        yield source.problem(
            ("concurrency", "key"),
            f"the key has {len(key)} characters; at most {MAX_LABEL_VALUE} are kept",
            "shorten it",
        )


def _reserved(names: Mapping[str, object], key: str, source: Source) -> Iterator[Problem]:
    for name in names:
        if name in RESERVED_WORDS:
            yield _reserved_problem(name, (key, name), source)


def _reserved_problem(name: str, location: Location, source: Source) -> Problem:
    message = f"`{name}` is a word of the expression language and cannot be a name"
    return source.problem(location, message, f"write {name}_")
