"""Tells in plain words what is wrong with the structure of a document."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from swarm.definitions.fields import IDENTIFIER_PATTERN, VERSION_PATTERN, Definition
from swarm.definitions.source import Location, Source
from swarm.definitions.values import describe
from swarm.kernel.errors import Problem, nearest_names
from swarm.kernel.json import JsonValue

_EXPECTED = {
    "string_type": "text",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing_size": "a smaller integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
}

_NOT_THIS_BRANCH = frozenset([*_EXPECTED, "literal_error"])
"""What pydantic says of each branch of a union that a value does not belong to."""

_SYNONYMS = {
    "args": "inputs",
    "condition": "when",
    "depends": "needs",
    "depends_on": "needs",
    "env": "environment",
    "handler": "entry",
    "foreach": "for_each",
    "if": "when",
    "loop": "for_each",
    "parallel": "max_parallel",
    "timeout_s": "timeout_seconds",
    "catch": "on_error",
    "input": "inputs",
    "main": "entry",
    "memory": "memory_mb",
    "on": "trigger",
    "output": "outputs",
    "params": "inputs",
    "requirements": "dependencies",
    "retries": "retry",
    "timeout": "timeout_seconds",
    "uses": "agent",
    "vars": "variables",
    "with": "inputs",
}
"""What other systems call it."""


def structure_problems(
    model: type[Definition],
    document: JsonValue,
    source: Source,
    origins: dict[Location, Location],
    error: ValidationError,
) -> list[Problem]:
    """Every fault that pydantic found, once each, in the order of the lines.

    Args:
        model: what the document was read as.
        document: the document in its normal form.
        source: where it came from.
        origins: for places of the document that the source has elsewhere, where.
        error: what pydantic found.
    """
    grouped: dict[tuple[Location, bool], list[ErrorDetails]] = {}
    located = [
        (_real_location(document, detail), detail) for detail in error.errors(include_url=False)
    ]
    around = {location[:end] for location, _ in located for end in range(len(location))}
    for location, detail in located:
        if detail["type"] == "too_short" and _at(document, location):
            continue  # its entries are faulty and are told of by themselves
        if detail["type"] in _NOT_THIS_BRANCH and location in around:
            continue  # it could be something else, but what it is has faults inside
        grouped.setdefault((location, detail["type"] == "missing"), []).append(detail)
    problems = []
    for (location, _), details in grouped.items():
        original = _original(location, origins)
        message, remedy = _explain(model, document, location, original, details)
        problems.append(source.problem(original, message, remedy))
    return sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))


def _original(location: Location, origins: dict[Location, Location]) -> Location:
    for end in range(len(location), 0, -1):
        if location[:end] in origins:
            return origins[location[:end]] + location[end:]
    return location


def _real_location(document: JsonValue, detail: ErrorDetails) -> Location:
    """The place in the document; pydantic also names branches of unions and keys of mappings."""
    location: list[str | int] = []
    value = document
    parts = detail["loc"]
    if detail["type"] == "missing":
        parts, missing = parts[:-1], parts[-1:]
    else:
        missing = ()
    for part in parts:
        in_mapping = isinstance(value, dict) and part in value
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_mapping or in_list:
            value = value[part]
            location.append(part)
    return (*location, *missing)


def _explain(
    model: type[Definition],
    document: JsonValue,
    location: Location,
    original: Location,
    details: list[ErrorDetails],
) -> tuple[str, str | None]:
    """Message and remedy for what is wrong at one place, named as the source names it."""
    detail = details[0]
    name = shown_location(original)
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _explain_unknown(model, location)
    if kind == "missing":
        parent = shown_location(original[:-1])
        message = f"`{original[-1]}` is missing" + (f" in {parent}" if parent else "")
        return message, f"add `{original[-1]}: ...`"
    value = _at(document, location)
    if detail["loc"] and detail["loc"][-1] == "[key]":
        return _explain_text(f"the name `{location[-1]}`", str(location[-1]), detail, location)
    if kind in ("string_pattern_mismatch", "string_too_long", "string_too_short"):
        return _explain_text(f"{name}: `{value}`", str(value), detail, location)
    words = next((each for each in details if each["type"] == "literal_error"), None)
    if words and isinstance(value, str):  # one of its words was meant, not another type
        return _explain_limit(name, value, words)
    expected = list(
        dict.fromkeys(_EXPECTED[each["type"]] for each in details if each["type"] in _EXPECTED)
    )
    if expected:
        what = name or "the file"
        message = f"{what} must be {' or '.join(expected)}, got {describe(value)}"
        return message, _type_remedy(location, value, expected)
    return _explain_limit(name, value, detail)


def _explain_unknown(model: type[Definition], location: Location) -> tuple[str, str]:
    key, parent = str(location[-1]), shown_location(location[:-1])
    known = sorted(_known_keys(model, location[:-1]))
    message = f"the key `{key}` is not known" + (f" in {parent}" if parent else "")
    if _SYNONYMS.get(key) in known:
        return message, f"it is called `{_SYNONYMS[key]}` here"
    nearest = nearest_names(key, known)
    if nearest:
        return message, f"did you mean {' or '.join(f'`{each}`' for each in nearest)}?"
    return message, f"known: {', '.join(known)}"


def _explain_text(
    what: str, value: str, detail: ErrorDetails, location: Location
) -> tuple[str, str | None]:
    if detail["type"] == "string_too_long":
        limit = detail["ctx"]["max_length"]
        return f"{what} is longer than {limit} characters", "shorten it"
    pattern = str(detail.get("ctx", {}).get("pattern", ""))
    if pattern == VERSION_PATTERN:
        return f"{what} is not a semantic version", "write three numbers, such as 1.0.0"
    if pattern == IDENTIFIER_PATTERN:
        return (
            f"{what} is not an identifier (letters, digits and _, not beginning with a digit)",
            f"write {_as_identifier(value)}",
        )
    return (
        f"{what} is not a name (small letters, digits, and . _ - inside)",
        f"write {_as_name(value)}",
    )


def _explain_limit(name: str, value: JsonValue, detail: ErrorDetails) -> tuple[str, str | None]:
    context = detail.get("ctx", {})
    shown = describe(value)
    match detail["type"]:
        case "literal_error":
            allowed = str(context["expected"]).replace("'", "`")
            nearest = nearest_names(
                str(value), allowed.replace("`", "").replace(" or ", ", ").split(", ")
            )
            remedy = f"did you mean {nearest[0]}?" if nearest else f"write {allowed}"
            return f"{name} must be {allowed}, got {shown}", remedy
        case "greater_than_equal":
            return f"{name} must be at least {context['ge']:g}, got {shown}", "give a larger number"
        case "greater_than":
            return (
                f"{name} must be more than {context['gt']:g}, got {shown}",
                "give a larger number",
            )
        case "less_than_equal":
            return f"{name} must be at most {context['le']:g}, got {shown}", "give a smaller number"
        case "less_than":
            return (
                f"{name} must be less than {context['lt']:g}, got {shown}",
                "give a smaller number",
            )
        case "too_long":
            limit, count = context["max_length"], context["actual_length"]
            return f"{name} may have {limit} entries, and has {count}", "remove some"
        case "too_short":
            return f"{name} must have at least {context['min_length']} entry", "add one"
        case _:
            return f"{name} is not usable: {detail['msg']}", None


def _type_remedy(location: Location, value: JsonValue, expected: list[str]) -> str | None:
    if "text" in expected and isinstance(value, (bool, int, float)):
        shown = "1.0.0" if location[-1:] == ("version",) else str(value)
        if isinstance(value, bool):
            shown = str(value).lower()
        return (
            f"write it in quotes: '{_full_version(value) if location == ('version',) else shown}'"
        )
    if expected == ["a list"]:
        return "write each entry on a line of its own, after a dash"
    if expected == ["a mapping"] and location:
        return "write its keys on indented lines below it: `key: value`"
    if expected == ["true or false"] and value in ("yes", "no", "on", "off"):
        return f"write {'true' if value in ('yes', 'on') else 'false'}"
    if expected[0] in ("an integer", "a number") and isinstance(value, str):
        return "write a number, without quotes or unit"
    if not location:
        return "write its keys on lines of their own: `name: ...`, `version: ...`"
    return f"write {' or '.join(expected)}"


def _full_version(value: float) -> str:
    return ".".join([*str(value).split("."), "0", "0"][:3])


def shown_location(location: Location) -> str:
    """``steps[0].inputs`` for ``("steps", 0, "inputs")``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def _as_identifier(value: str) -> str:
    letters = "".join(
        each if each.isascii() and (each.isalnum() or each == "_") else "_" for each in value
    )
    return (f"_{letters}" if not letters or letters[0].isdigit() else letters)[:64]


def _as_name(value: str) -> str:
    letters = "".join(
        each if each.isascii() and (each.isalnum() or each in "._-") else "-"
        for each in value.lower()
    )
    return letters.strip("._-")[:64] or "my-agent"


def _at(document: JsonValue, location: Iterable[str | int]) -> JsonValue:
    for part in location:
        document = document[part]
    return document


def _known_keys(model: type[Definition], location: Location) -> set[str]:
    """The keys that the model at ``location`` may have."""
    annotation: Any = model
    for part in location:
        annotation = _inner(annotation, part)
    found = _model_in(annotation)
    if found is None:
        return set()
    return {info.alias or name for name, info in found.model_fields.items()}


def _inner(annotation: Any, part: str | int) -> Any:
    found = _model_in(annotation)
    if isinstance(part, int) or found is None:
        return annotation
    for name, info in found.model_fields.items():
        if (info.alias or name) == part:
            return info.annotation
    return None


def _model_in(annotation: Any) -> type[Definition] | None:
    """The model that an annotation such as ``tuple[Step, ...] | None`` is about."""
    arguments = typing.get_args(annotation)
    if not arguments:
        is_model = isinstance(annotation, type) and issubclass(annotation, Definition)
        return annotation if is_model else None
    for argument in arguments:
        if (found := _model_in(argument)) is not None:
            return found
    return None
