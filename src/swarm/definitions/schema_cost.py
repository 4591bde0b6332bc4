"""Refuses JSON Schemas whose references make checking a value take for ever.

Without references, each part of a schema is applied at most once to each part of a value. With
them, a few lines can ask for more work than a machine will ever do: ``a`` refers to ``b`` twice,
``b`` to ``c`` twice, and so on; or ``a`` refers to itself twice for the same items. The author of a
package writes its schemas, and the host applies them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from swarm.kernel.json import JsonObject, JsonValue

MAX_PARTS: Final = 10_000
"""Parts of a schema, each counted as often as references lead to it."""

_ANY: Final = "*"
_EVERYWHERE: Final = frozenset(
    {
        "items",
        "prefixItems",
        "contains",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""Keywords whose schemas are applied to parts of a value that cannot be told apart here."""
_BY_NAME: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_DATA: Final = frozenset({"const", "default", "enum", "examples"})
_DEFINITIONS: Final = frozenset({"$defs", "definitions"})
_OTHER_WAYS: Final = frozenset({"$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor"})
"""Ways of referring that can lead elsewhere than it looks, and are not needed in one document."""

_Path = tuple[str, ...]


class CostlySchema(ValueError):
    """The schema may not be used; the message says why."""


def check_cost(schema: JsonValue) -> None:
    """Refuse a schema that could be costly to apply.

    Raises:
        CostlySchema: it is.
    """
    _Walk(schema).expand(schema, (), {})


class _Walk:
    def __init__(self, root: JsonValue) -> None:
        self._root = root
        self._left = MAX_PARTS
        self._returns: set[tuple[str, _Path]] = set()

    def expand(self, schema: JsonValue, path: _Path, open_at: dict[str, _Path]) -> None:
        """Visit a part of the schema with all that it refers to.

        Args:
            schema: the part.
            path: to the part of a value that it is applied to.
            open_at: references that are being followed, and the path at which each began.
        """
        self._left -= 1
        if self._left < 0:
            raise CostlySchema(f"with what its references lead to it has over {MAX_PARTS} parts")
        if not isinstance(schema, dict):
            return
        reference = schema.get("$ref")
        if isinstance(reference, str):
            self._follow(reference, path, open_at)
        used = _OTHER_WAYS & schema.keys()
        if "$id" in schema and schema is not self._root:
            used |= {"$id"}
        if used:
            raise CostlySchema(f"`{min(used)}` is not supported here; use `$ref` with `#/...`")
        for part, further in _parts(schema):
            self.expand(part, (*path, *further), open_at)

    def _follow(self, reference: str, path: _Path, open_at: dict[str, _Path]) -> None:
        if reference not in open_at:
            target = _resolve(self._root, reference)
            self.expand(target, path, {**open_at, reference: path})
            return
        # Once for each part of a value is what a schema of trees needs; twice is twice as much
        # work at each level.
        way = path[len(open_at[reference]) :]
        if (reference, way) in self._returns:
            raise CostlySchema(f"`{reference}` leads to itself twice for the same part of a value")
        self._returns.add((reference, way))


def _parts(schema: JsonObject) -> Iterator[tuple[JsonValue, _Path]]:
    """The schemas within a schema, and which parts of a value each is applied to."""
    for key, value in schema.items():
        if key in _DATA or key in _DEFINITIONS:
            continue
        if key in _BY_NAME and isinstance(value, dict):
            for name, part in value.items():
                yield part, {"properties": (name,), "patternProperties": (_ANY,)}.get(key, ())
        elif isinstance(value, list):
            yield from ((part, (_ANY,) if key in _EVERYWHERE else ()) for part in value)
        elif isinstance(value, dict):
            yield value, (_ANY,) if key in _EVERYWHERE else ()


def _resolve(root: JsonValue, reference: str) -> JsonValue:
    """What a reference within the schema leads to.

    Raises:
        CostlySchema: it is none that starts at the root.
    """
    if reference != "#" and not reference.startswith("#/"):
        raise CostlySchema(f"`{reference}`: only references that start with `#/` are supported")
    found = root
    for step in reference.removeprefix("#").split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise CostlySchema(f"`{reference}` leads nowhere")
    return found
