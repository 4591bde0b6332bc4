"""JSON as Swarm writes it: no spaces, keys sorted unless asked otherwise, NaN refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias

import orjson

from swarm.kernel.errors import InvalidError

JsonValue: TypeAlias = Any
"""None, bool, int, float (finite), str, list or dict with str keys, nested."""

JsonObject: TypeAlias = dict[str, JsonValue]


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
    if b"null" in data and (path := _not_finite(value, PurePath())) is not None:
        raise InvalidError(f"the value at {path or '/'} is NaN or infinite, which JSON lacks")
    return data


def loads(text: str | bytes) -> JsonValue:
    """Parse strict JSON.

    Raises:
        InvalidError: not JSON; the message has the line and column.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidError(f"not valid JSON: {error}") from None


def _not_finite(value: JsonValue, path: PurePath) -> str | None:
    """The path of the first NaN or infinity below ``value``, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else str(path)
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        pairs = [(str(index), item) for index, item in enumerate(value)]
    else:
        return None
    for key, item in pairs:
        if (found := _not_finite(item, path / str(key))) is not None:
            return found
    return None
