"""Checks values against declared fields, and describes fields as JSON Schema.

A field that is not required may be left out or be null; both mean "not given", and its default (or
null, when it has none) takes the place. So every declared name is there afterwards, and checking
twice changes nothing. Nothing is converted; an integer is also a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any, Literal

import jsonschema_rs

from swarm.definitions.fields import FieldDefinition
from swarm.definitions.files import FILE_VALUE_SCHEMA, is_file_value
from swarm.definitions.schema_cost import check_cost
from swarm.kernel.errors import InputError, nearest_names
from swarm.kernel.json import JsonObject, JsonValue, dumps, loads

SECRET_KEY = "$secret"
MAX_SHOWN = 40
MAX_FAULTS = 20

_CACHE_SIZE = 512
_SMALL_VALUE = 4096
"""Bytes of a value, as JSON, of which several faults are told."""
_SHOWN_FAULT = 300
"""Characters of one fault."""
_BACKTRACK_LIMIT = 20_000
"""Steps back that a pattern may take on one string: half a millisecond."""

Kind = Literal["input", "output"]

_Check = Callable[[JsonValue], str | None]
"""Says what is wrong with a value ("must be a string, got integer 5"), or None."""


def check_values(
    fields: Sequence[FieldDefinition],
    values: JsonValue,
    *,
    subject: str,
    kind: Kind = "input",
    secrets: bool = False,
    additional: bool = False,
) -> JsonObject:
    """Apply defaults and check types, enums, schemas and names.

    Args:
        fields: what is declared.
        values: plain JSON, as given.
        subject: whose values they are, for messages, such as ``echo@1.0.0``.
        kind: what they are to it, for messages.
        secrets: whether ``{"$secret": "NAME"}`` may stand for a value (in a step's inputs).
        additional: whether names that are not declared are kept, as they are.

    Returns:
        A new object with every declared name, in the order of the fields, then the additional ones.

    Raises:
        InputError: names all faults.
    """
    if not isinstance(values, dict):
        raise InputError(
            f"the {kind}s of {subject} must be an object, got {describe(values)}",
            remedy='give a JSON object, such as {"name": "value"}',
        )
    checked: JsonObject = {}
    faults: list[str] = []
    for name, check, required, default in _compiled(fields):
        value = values.get(name)
        if value is None and not required:
            checked[name] = deepcopy(default) if isinstance(default, (dict, list)) else default
            continue
        checked[name] = value
        fault = check(value)
        if fault is None or (secrets and is_secret_reference(value)):
            continue
        faults.append(
            f"{kind} `{name}` of {subject} " + (fault if name in values else "is missing")
        )
    if additional:
        checked |= {name: value for name, value in values.items() if name not in checked}
    if faults or len(values) > len(checked) or not values.keys() <= checked.keys():
        _refuse(fields, values.keys() - checked.keys(), (subject, kind), faults)
    return checked


def check_value(field: FieldDefinition, value: JsonValue) -> str | None:
    """What is wrong with one given value ("must be a string, got integer 5"), or None."""
    return _check_of(field)(value)


def is_secret_reference(value: JsonValue) -> bool:
    """Whether ``value`` is what ``${secrets.NAME}`` evaluates to."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(SECRET_KEY), str)


def fields_schema(fields: Sequence[FieldDefinition], *, additional: bool = False) -> JsonObject:
    """The JSON Schema (2020-12) of the objects that :func:`check_values` accepts."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {field.name: _field_schema(field) for field in fields},
        "required": [field.name for field in fields if is_required(field)],
        "additionalProperties": additional,
    }


def schema_fault(schema: JsonObject) -> str | None:
    """What is wrong with a JSON Schema, or None. Remote references are never fetched."""
    try:
        _compile_schema(schema)
        check_cost(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        return str(getattr(error, "message", None) or error).splitlines()[0]
    return None


def describe(value: JsonValue) -> str:
    """A value for messages, such as ``integer 5`` or ``string "abc"``; long ones are cut."""
    kind = {
        "NoneType": "null",
        "bool": "boolean",
        "int": "integer",
        "float": "number",
        "str": "string",
        "list": "array",
        "dict": "object",
    }.get(type(value).__name__, type(value).__name__)
    if value is None:
        return kind
    if isinstance(value, (list, tuple)):
        return f"{kind} of {len(value)} items"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{kind} {value}"
    if not isinstance(value, (bool, int, float, str, dict)):
        return kind
    shown = dumps(value) if not isinstance(value, int) or isinstance(value, bool) else str(value)
    return f"{kind} {shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 3] + '...'}"


def _refuse(
    fields: Sequence[FieldDefinition],
    unknown: Iterable[str],
    named: tuple[str, Kind],
    faults: list[str],
) -> None:
    subject, kind = named
    known = [field.name for field in fields]
    offered: list[str] = []
    for name in sorted(map(str, unknown)):
        faults.append(f"{kind} `{name}` of {subject} is not declared")
        offered += nearest_names(name, known, limit=1)
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [f"and {len(faults) - MAX_FAULTS} more"]
    remedy = (
        f"did you mean {' and '.join(sorted(set(offered)))}?"
        if offered
        else f"declared: {', '.join(map(_declared, fields)) or 'nothing'}"
    )
    raise InputError("; ".join(faults), remedy=remedy)


def _declared(field: FieldDefinition) -> str:
    return f"{field.name} ({field.type}{'' if is_required(field) else ', optional'})"


def is_required(field: FieldDefinition) -> bool:
    """Whether a value must be given: it is required and has no default."""
    return field.required and not field.has_default


_Compiled = tuple[tuple[str, _Check, bool, JsonValue], ...]
_by_identity: dict[int, tuple[Sequence[FieldDefinition], _Compiled]] = {}


def _compiled(fields: Sequence[FieldDefinition]) -> _Compiled:
    """Name, check, whether required and default of each field; kept for the last tuples seen."""
    kept = _by_identity.get(id(fields))
    if kept is not None and kept[0] is fields:
        return kept[1]
    compiled = tuple(
        (
            field.name,
            _check_of(field),
            is_required(field),
            field.default if field.has_default else None,
        )
        for field in fields
    )
    if isinstance(fields, tuple):
        if len(_by_identity) >= _CACHE_SIZE:
            _by_identity.clear()
        _by_identity[id(fields)] = (fields, compiled)
    return compiled


def _check_of(field: FieldDefinition) -> _Check:
    check = _TYPE_CHECKS[field.type]
    if field.enum is None and field.schema_ is None:
        return check
    validator = _validator(dumps(field.schema_)) if field.schema_ is not None else None
    return lambda value: check(value) or _check_further(field, validator, value)


def _check_further(
    field: FieldDefinition, validator: jsonschema_rs.Draft202012Validator | None, value: JsonValue
) -> str | None:
    if field.enum is not None and not any(_same(value, each) for each in field.enum):
        allowed = ", ".join(dumps(each) for each in field.enum)
        return f"must be one of {allowed}, got {describe(value)}"
    if validator is None or validator.is_valid(value):
        return None
    # To tell all faults of a large value would take minutes, and gigabytes.
    if len(dumps(value)) <= _SMALL_VALUE:
        faults = [_schema_fault(error) for error in validator.iter_errors(value)]
        return f"does not fit its schema: {'; '.join(faults[:3])}"
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return f"does not fit its schema: {_schema_fault(error)}"
    return None


def _schema_fault(error: jsonschema_rs.ValidationError) -> str:
    place = "".join(f"[{part!r}]" for part in error.instance_path)
    text = f"{place} {error.message}".strip()
    return text if len(text) <= _SHOWN_FAULT else f"{text[:_SHOWN_FAULT]}…"


def _same(left: JsonValue, right: JsonValue) -> bool:
    """Equality of JSON values, in which true is not 1, at any depth."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    return bool(left == right)


@lru_cache(maxsize=_CACHE_SIZE)
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    return _compile_schema(loads(schema))


def _compile_schema(schema: JsonObject) -> jsonschema_rs.Draft202012Validator:
    options = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACK_LIMIT)
    return jsonschema_rs.Draft202012Validator(schema, offline=True, pattern_options=options)


def _expect(kind: str, article: str, *types: type) -> _Check:
    message = f"must be {article} {kind}, got "
    return lambda value: None if type(value) in types else message + describe(value)


def _check_number(value: JsonValue) -> str | None:
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return None
    return f"must be a number, got {describe(value)}"


def _check_file(value: JsonValue) -> str | None:
    if is_file_value(value):
        return None
    return f"must be a file (a value with `$artifact`), got {describe(value)}"


def _check_directory(value: JsonValue) -> str | None:
    if is_file_value(value):
        return None
    return f"must be a directory (a value with `$artifact`), got {describe(value)}"


_TYPE_CHECKS: dict[str, _Check] = {
    "string": _expect("string", "a", str),
    "integer": _expect("integer", "an", int),
    "number": _check_number,
    "boolean": _expect("boolean", "a", bool),
    "object": _expect("object", "an", dict),
    "array": _expect("array", "an", list),
    "file": _check_file,
    "directory": _check_directory,
}


def _field_schema(field: FieldDefinition) -> JsonObject:
    schema: JsonObject = (
        deepcopy(FILE_VALUE_SCHEMA) if field.type in ("file", "directory") else {"type": field.type}
    )
    if field.enum is not None:
        schema["enum"] = list(field.enum)
    if field.schema_ is not None:
        schema = {"allOf": [schema, deepcopy(field.schema_)]}
    if not is_required(field):
        schema = {"anyOf": [schema, {"type": "null"}]}
    described: dict[str, Any] = {}
    if field.description:
        described["description"] = field.description
    if field.has_default:
        described["default"] = deepcopy(field.default)
    return {**described, **schema}
