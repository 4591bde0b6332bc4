"""Views of plain data that an expression can read and cannot change.

MiniJinja hands a Python object's attributes and methods to the expression, so ``steps.pop('a')``
on a dict would change a live run, and ``steps.keys`` would be a method. These views have no public
attribute at all, wrap what is inside only when it is touched (nothing is copied), and give the
plain value back through :func:`thaw`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swarm.expressions.meter import ENTRY_COST, spend
from swarm.kernel.errors import ExpressionError
from swarm.kernel.json import JsonValue

SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**64 - 1


class FrozenObject:
    """A JSON object.

    MiniJinja asks ``hasattr(x, "items")`` to see that it is a mapping and then, for ``x.items``,
    first the key and then the attribute. So the attribute seems to be there, except right after
    the key was missed.
    """

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("_missed_items", "_value")

    def __init__(self, value: Mapping[str, JsonValue]) -> None:
        self._value = value
        self._missed_items = False

    def __getitem__(self, key: object) -> Any:
        try:
            return freeze(self._value[key])  # type: ignore[index]
        except KeyError:
            self._missed_items = key == "items"
            raise

    def __getattr__(self, name: str) -> Any:
        if name == "items" and not self._missed_items:
            return None
        self._missed_items = False
        raise AttributeError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._value)

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenObject) and self._value == other._value

    def __lt__(self, other: object) -> bool:
        return False


class FrozenArray:
    """A JSON array."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("_value",)

    def __init__(self, value: Sequence[JsonValue]) -> None:
        self._value = value

    def __getitem__(self, index: int) -> Any:
        return freeze(self._value[index])

    def __iter__(self) -> Iterator[Any]:
        return map(freeze, self._value)

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenArray) and self._value == other._value

    def __lt__(self, other: object) -> bool:
        return False


Sequence.register(FrozenArray)  # how MiniJinja tells that it can be indexed


def freeze(value: JsonValue) -> Any:
    """A read-only view of ``value``; scalars are themselves."""
    kind = type(value)
    if kind is dict:
        return FrozenObject(value)
    if kind is list or kind is tuple:
        return FrozenArray(value)
    return value


def thaw(value: Any, expression: str, where: str) -> JsonValue:
    """The plain JSON of what an expression gave; a copy that shares nothing with live data.

    Raises:
        ExpressionError: it holds something that JSON cannot carry.
        FilterError: it is too large.
    """
    kind = type(value)
    if kind is str:
        spend(len(value))
        return value
    if value is None or kind is bool:
        return value
    if kind is int:
        if SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            return value
        what = f"the integer {str(value)[:40]}, which does not fit into 64 bits"
        raise _refused(what, "write it as text: value|string", expression, where)
    if kind is float:
        if value - value == 0:  # neither NaN nor infinite
            return value
        raise _refused(f"{value}, which JSON cannot carry", "check the numbers", expression, where)
    if kind is FrozenObject or kind is FrozenArray:
        return thaw(value._value, expression, where)
    if kind is dict:
        spend(ENTRY_COST * (1 + len(value)))
        return {
            _key(key, expression, where): thaw(item, expression, where)
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        spend(ENTRY_COST * (1 + len(value)))
        return [thaw(item, expression, where) for item in value]
    if isinstance(value, str):
        return str.__str__(value)  # text marked as safe for HTML
    what = f"a {kind.__name__}, which is no JSON value"
    raise _refused(what, "end the expression with a value", expression, where)


def _key(key: object, expression: str, where: str) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    raise _refused(f"a mapping with the key {key!r}", "keys must be text", expression, where)


def _refused(what: str, remedy: str, expression: str, where: str) -> ExpressionError:
    return ExpressionError(f"${{{expression}}} gave {what}", where=where, remedy=remedy)
