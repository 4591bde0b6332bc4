"""The filters that are made here, in place of MiniJinja's.

MiniJinja's own filters that make text are replaced, because they let a short expression ask for
more memory than the machine has (``'%999999999d'|format(1)``, ``[1]|batch(999999999, 0)``, or
quoting a quoted text again and again), and a failed allocation ends the whole process. The ones
here count what they make (see :mod:`swarm.expressions.meter`). Text is made of other values in one
way everywhere: as JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from swarm.expressions.frozen import FrozenArray, FrozenObject, thaw
from swarm.expressions.meter import ENTRY_COST, FilterError, spend
from swarm.kernel.errors import ExpressionError
from swarm.kernel.json import JsonValue, dumps

NUMBER_GUARD = "swarm_number"
TEXT_GUARD = "swarm_text"


def as_text(value: JsonValue) -> str:
    """Text as it is; any other value as JSON."""
    return value if isinstance(value, str) else dumps(value)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise FilterError(f"`{name}` takes text, but was given {_kind(value)}")
    return value


def _array(value: object, name: str) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, (FrozenArray, list, tuple)):
        raise FilterError(f"`{name}` takes an array, but was given {_kind(value)}")
    return list(value)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "an object" if isinstance(value, (dict, FrozenObject)) else "an array"


def _json(value: object) -> str:
    try:
        text = dumps(thaw(value, "", ""))
    except ExpressionError as error:
        raise FilterError(error.message.removeprefix("${} gave ")) from None
    spend(len(text))
    return text


def _join(value: object, separator: object = "", attribute: object = None) -> str:
    if attribute is not None:
        raise FilterError("`join` takes no attribute; use map(attribute=...) before it")
    between = _text(separator, "join")
    parts = [item if isinstance(item, str) else _json(item) for item in _array(value, "join")]
    spend(sum(map(len, parts)) + len(between) * len(parts))
    return between.join(parts)


def _replace(value: object, old: object, new: object) -> str:
    text, before, after = (_text(each, "replace") for each in (value, old, new))
    spend(len(text) + text.count(before) * len(after))
    return text.replace(before, after)


def _split(value: object, separator: object = None, limit: object = -1) -> list[str]:
    between = None if separator is None else _text(separator, "split")
    if between == "" or not isinstance(limit, int):
        raise FilterError("`split` takes a text that is not empty, and a whole number")
    text = _text(value, "split")
    parts = text.split(between, limit)
    spend(len(text) + ENTRY_COST * len(parts))
    return parts


def _trim(value: object, characters: object = None) -> str:
    text = _text(value, "trim")
    spend(len(text))
    return text.strip(None if characters is None else _text(characters, "trim"))


def _urlencode(value: object) -> str:
    text = quote(_string(value), safe="/")
    spend(len(text))
    return text


def _string(value: object) -> str:
    return value if isinstance(value, str) else _json(value)


def _number_guard(value: object) -> object:
    """Operands of ``*``: repeating text or arrays could fill the memory."""
    if isinstance(value, (int, float)):
        return value
    raise FilterError(f"`*` takes numbers, but was given {_kind(value)}")


def _text_guard(value: object) -> str:
    """Operands of ``~``: joined as text is everywhere, and within limits."""
    if value is None:
        raise FilterError("`~` was given null; use default('...') for a text in its place")
    return _string(value)


def _of_text(name: str, change: Callable[[str], Any]) -> Callable[[object], Any]:
    def changed(value: object) -> Any:
        text = _text(value, name)
        spend(len(text))
        return change(text)

    return changed


OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "capitalize": _of_text("capitalize", str.capitalize),
    "join": _join,
    "lines": _of_text("lines", str.splitlines),
    "lower": _of_text("lower", str.lower),
    "replace": _replace,
    "split": _split,
    "string": _string,
    "title": _of_text("title", str.title),
    "tojson": _json,
    "trim": _trim,
    "upper": _of_text("upper", str.upper),
    "urlencode": _urlencode,
    NUMBER_GUARD: _number_guard,
    TEXT_GUARD: _text_guard,
}
