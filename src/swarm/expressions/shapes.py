"""What is known of values before a run: their types, their parts and what arrays hold.

A :class:`Shape` says only what is certain; whatever is not known is left open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from swarm.definitions.fields import FieldDefinition
from swarm.expressions.expression import Reference
from swarm.expressions.template import compile_template
from swarm.kernel.errors import ExpressionError
from swarm.kernel.json import JsonObject, JsonValue

_NO_PARTS: Final[Mapping[str, Shape]] = MappingProxyType({})
_JSON_TYPES: Final = frozenset({"string", "integer", "number", "boolean", "object", "array"})
_MAX_SCHEMA_DEPTH: Final = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a value."""

    kind: str | None = None
    """Its type, as a field declares it; None if it is not known."""
    parts: Mapping[str, Shape] = field(default_factory=lambda: _NO_PARTS)
    """Parts of an object that are known."""
    is_closed: bool = False
    """Whether it has no other parts."""
    items: Shape | None = None
    """What an array holds; None if it is not known."""

    @property
    def is_scalar(self) -> bool:
        return self.kind in ("string", "integer", "number", "boolean")


UNKNOWN: Final = Shape()
STRING: Final = Shape("string")
INTEGER: Final = Shape("integer")
BOOLEAN: Final = Shape("boolean")


def object_of(parts: Mapping[str, Shape], *, is_closed: bool = True) -> Shape:
    """An object with these parts, and no others unless ``is_closed`` is False."""
    return Shape("object", parts, is_closed)


def array_of(items: Shape) -> Shape:
    return Shape("array", items=items)


def fields_shape(fields: Iterable[FieldDefinition], *, is_closed: bool = True) -> Shape:
    """The object that declared fields describe."""
    return object_of({each.name: field_shape(each) for each in fields}, is_closed=is_closed)


def field_shape(declared: FieldDefinition) -> Shape:
    """What a declaration says of its value, with what its JSON Schema says plainly."""
    if declared.schema_ is None or declared.type not in ("object", "array"):
        return Shape(declared.type)
    inner = _schema_shape(declared.schema_, 0)
    return Shape(declared.type, inner.parts, inner.is_closed, inner.items)


def _schema_shape(schema: JsonObject, depth: int) -> Shape:
    """What the plainest keywords of a JSON Schema say; all others leave things open."""
    kind = schema.get("type")
    properties = schema.get("properties")
    items = schema.get("items")
    if depth >= _MAX_SCHEMA_DEPTH:
        return UNKNOWN
    parts = {
        name: _schema_shape(each, depth + 1)
        for name, each in (properties if isinstance(properties, dict) else {}).items()
        if isinstance(each, dict)
    }
    return Shape(
        kind if isinstance(kind, str) and kind in _JSON_TYPES else None,
        parts,
        schema.get("additionalProperties") is False
        and "patternProperties" not in schema
        and isinstance(properties, dict)
        and len(parts) == len(properties),
        _schema_shape(items, depth + 1)
        if isinstance(items, dict) and "prefixItems" not in schema
        else None,
    )


def value_shape(value: JsonValue, of_path: Callable[[Reference], Shape]) -> Shape:
    """What is known of a value whose texts may hold expressions.

    Args:
        value: plain JSON, as written.
        of_path: what is known of a path such as ``("inputs", "text")``.
    """
    if isinstance(value, dict):
        return object_of({key: value_shape(each, of_path) for key, each in value.items()})
    if isinstance(value, list):
        return array_of(shared_shape([value_shape(each, of_path) for each in value]))
    if isinstance(value, str) and "${" in value:
        return _text_shape(value, of_path)
    return Shape(_KINDS.get(type(value)))


_KINDS: Final[Mapping[type, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
}


def _text_shape(text: str, of_path: Callable[[Reference], Shape]) -> Shape:
    try:
        template = compile_template(text, where="")
    except ExpressionError:
        return UNKNOWN  # told where it is checked
    if not template.is_whole:
        return STRING
    if template.path is not None:
        return of_path(template.path)
    if not template.references:
        try:
            return value_shape_of_constant(template.evaluate({}))
        except ExpressionError:
            return UNKNOWN
    return UNKNOWN


def value_shape_of_constant(value: JsonValue) -> Shape:
    """The shape of a value that is known."""
    if isinstance(value, dict):
        return object_of({key: value_shape_of_constant(each) for key, each in value.items()})
    if isinstance(value, list):
        return array_of(shared_shape([value_shape_of_constant(each) for each in value]))
    return Shape(_KINDS.get(type(value)))


def shared_shape(shapes: Sequence[Shape]) -> Shape:
    """What is known of a value that is any one of these: their type if it is the same, and the
    parts of all of them."""
    kinds = {shape.kind for shape in shapes}
    if len(kinds) != 1:
        return UNKNOWN
    (kind,) = kinds
    if kind == "array":
        inner = [shape.items for shape in shapes]
        known = [each for each in inner if each is not None]
        return Shape(kind, items=shared_shape(known) if len(known) == len(inner) else None)
    if kind != "object":
        return Shape(kind)
    grouped: dict[str, list[Shape]] = {}
    for shape in shapes:
        for name, part in shape.parts.items():
            grouped.setdefault(name, []).append(part)
    parts = {name: shared_shape(each) for name, each in grouped.items()}
    return object_of(parts, is_closed=all(shape.is_closed for shape in shapes))
