"""JSON as Swarm writes it: no spaces, keys sorted unless asked otherwise, NaN refused.

What is read is nested less deep than what can be written, so that a value from outside never fails
to be stored for its depth, in whatever record it is put.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import orjson

from swarm.kernel.errors import InvalidError

JsonValue: TypeAlias = Any
"""None, bool, int, float (finite), str, list or dict with str keys, nested."""

JsonObject: TypeAlias = dict[str, JsonValue]

MAX_DEPTH: Final = 200
"""Levels of lists and objects in what is read."""
_WRITER_DEPTH: Final = 254
"""Levels that orjson writes; it reads 1,024."""


def dumps(value: JsonValue, *, sort_keys: bool = True) -> str:
    """JSON text of ``value``: canonical, or with its keys in the order given.

    Raises:
        InvalidError: the value holds something JSON cannot carry (NaN, bytes, a set, ...).
    """
    return dump_bytes(value, sort_keys=sort_keys).decode()


def dump_bytes(value: JsonValue, *, sort_keys: bool = True) -> bytes:
    """JSON of ``value`` as UTF-8 bytes; with sorted keys, equal values give equal bytes."""
    try:
        data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError as error:
        raise InvalidError(f"the value cannot be written as JSON: {error}") from None
    # orjson writes NaN and infinity as null.
    if b"null" in data and (keys := _not_finite(value)) is not None:
        place = "/" + "/".join(reversed(keys))
        raise InvalidError(f"the value at {place} is NaN or infinite, which JSON lacks")
    return data


def loads(text: str | bytes) -> JsonValue:
    """Parse strict JSON.

    Raises:
        InvalidError: not JSON, which is told with the line and column; or nested too deeply.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidError(f"not valid JSON: {error}") from None
    if _is_too_deep(text, value):
        raise InvalidError(f"nested more than {MAX_DEPTH} levels deep")
    return value


def _is_too_deep(text: str | bytes, value: JsonValue) -> bool:
    if len(text) <= MAX_DEPTH:
        return False
    brackets = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, brackets)) <= MAX_DEPTH:  # type: ignore[arg-type]
        return False
    # No walk in Python is as quick as having it written, within so many levels that what may be
    # read just fits.
    for _ in range(_WRITER_DEPTH - MAX_DEPTH):
        value = [value]
    try:
        orjson.dumps(value)
    except TypeError:
        return True
    return False


def _not_finite(value: JsonValue) -> list[str] | None:
    """The keys that lead to the first NaN or infinity below ``value``, innermost first."""
    if isinstance(value, float):
        return None if math.isfinite(value) else []
    if isinstance(value, dict):
        pairs: Iterable[tuple[object, JsonValue]] = value.items()
    elif isinstance(value, (list, tuple)):
        pairs = enumerate(value)
    else:
        return None
    for key, item in pairs:
        if (found := _not_finite(item)) is not None:
            found.append(str(key))
            return found
    return None
