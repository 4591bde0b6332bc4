"""What must hold in a definition beyond its structure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.fields import NAME_PATTERN, VERSION_PATTERN, FieldDefinition
from swarm.definitions.source import Location, Source
from swarm.definitions.values import check_value, describe, schema_fault
from swarm.definitions.workflow import WorkflowDefinition
from swarm.kernel.errors import Problem

_WORDS = "and or not in is if else true false none null True False None loop self"
RESERVED_WORDS = frozenset(_WORDS.split())
"""Words of the expression language, which cannot name anything in it."""

_AGENT_REFERENCE = re.compile(rf"{NAME_PATTERN[1:-1]}(@{VERSION_PATTERN[1:-1]})?")


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
        *_reserved(workflow.output_values, "outputs", source),
        *_reserved(workflow.variables, "variables", source),
        *_step_problems(workflow, source),
    ]


def field_problems(
    fields: Sequence[FieldDefinition], location: Location, source: Source
) -> Iterator[Problem]:
    """Doubled names, and defaults, enums and schemas that contradict the type."""
    seen: dict[str, int] = {}
    for index, field in enumerate(fields):
        at = (*location, index)
        kind = str(location[-1]).removesuffix("s")
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


def _step_problems(workflow: WorkflowDefinition, source: Source) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, step in enumerate(workflow.steps):
        at = ("steps", index, "id")
        if step.id in seen:
            line, _ = source.position(("steps", seen[step.id]))
            message = f"the step id `{step.id}` is used twice (first on line {line})"
            yield source.problem(at, message, "rename one of them")
        seen.setdefault(step.id, index)
        if step.id in RESERVED_WORDS:
            yield _reserved_problem(step.id, at, source)
        if step.agent is not None and _AGENT_REFERENCE.fullmatch(step.agent) is None:
            yield source.problem(
                ("steps", index, "agent"),
                f"`{step.agent}` does not name an agent",
                "write name (the highest version) or name@1.0.0",
            )


def _reserved(names: Mapping[str, object], key: str, source: Source) -> Iterator[Problem]:
    for name in names:
        if name in RESERVED_WORDS:
            yield _reserved_problem(name, (key, name), source)


def _reserved_problem(name: str, location: Location, source: Source) -> Problem:
    message = f"`{name}` is a word of the expression language and cannot be a name"
    return source.problem(location, message, f"write {name}_")
