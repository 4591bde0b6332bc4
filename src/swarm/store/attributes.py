"""What runs can be found by: labels, and the values of inputs that a workflow declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from swarm.definitions.labels import (
    MAX_LABEL_NAME,
    MAX_LABEL_VALUE,
    MAX_LABELS,
    MAX_SEARCH_INPUTS,
    MAX_SEARCH_VALUE,
)
from swarm.kernel.errors import InvalidError
from swarm.kernel.json import JsonValue, dumps
from swarm.store.records import RunAttribute

_LIMITS = {"label": MAX_LABELS, "input": MAX_SEARCH_INPUTS}


def label_attributes(labels: Mapping[str, str]) -> tuple[RunAttribute, ...]:
    """The attributes of a run with these labels.

    Raises:
        InvalidError: there are too many, or one is too long.
    """
    return checked_attributes(
        RunAttribute("label", name, value) for name, value in sorted(labels.items())
    )


def input_attributes(
    names: Iterable[str], inputs: Mapping[str, JsonValue]
) -> tuple[RunAttribute, ...]:
    """The attributes for those inputs in ``names`` that have a value of a scalar type.

    Raises:
        InvalidError: there are too many.
    """
    return checked_attributes(
        RunAttribute("input", name, search_text(inputs[name]))
        for name in dict.fromkeys(names)
        if inputs.get(name) is not None and not isinstance(inputs[name], (dict, list))
    )


def search_text(value: JsonValue) -> str:
    """An input's value as it is found by: text as it is, all else as JSON writes it."""
    return (value if isinstance(value, str) else dumps(value))[:MAX_SEARCH_VALUE]


def checked_attributes(attributes: Iterable[RunAttribute]) -> tuple[RunAttribute, ...]:
    """The attributes without duplicates, values of inputs cut to their length.

    Raises:
        InvalidError: there are too many of a kind, or a label is too long.
    """
    cut = (
        replace(one, value=one.value[:MAX_SEARCH_VALUE]) if one.kind == "input" else one
        for one in attributes
    )
    checked = tuple(dict.fromkeys(cut))
    for kind, limit in _LIMITS.items():
        if (count := sum(one.kind == kind for one in checked)) > limit:
            raise InvalidError(
                f"{count} {kind}s to find a run by are too many; the limit is {limit}",
                remedy="leave some out",
            )
    for one in checked:
        longest = MAX_LABEL_NAME if one.kind == "label" else MAX_SEARCH_VALUE
        if not one.name or len(one.name) > longest or len(one.value) > MAX_LABEL_VALUE:
            raise InvalidError(
                f"the {one.kind} {one.name[:longest]!r} is empty or too long to find runs by",
                remedy=f"names may have {longest}, values {MAX_LABEL_VALUE} characters",
            )
    return checked
