"""Lengths of time and moments, as manifests and command lines write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)d)?\s*(?:(?P<h>\d+(?:\.\d+)?)h)?\s*"
    r"(?:(?P<m>\d+(?:\.\d+)?)m)?\s*(?:(?P<s>\d+(?:\.\d+)?)s)?"
)
LONGEST_SECONDS: Final = 366 * 86_400 * 10.0
"""Ten years: what is longer is a mistake."""


def parse_duration(value: object) -> float:
    """Seconds of ``90``, ``"90"``, ``"90m"`` or ``"2d12h"`` (days, hours, minutes, seconds).

    Raises:
        ValueError: it is no length of time, negative, or longer than ten years; says what it may
            be.
    """
    seconds = _seconds(value)
    if seconds is None or not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError(
            f"{value!r} is no length of time: give seconds, or text such as 90m or 2d12h, "
            "at most ten years"
        )
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    try:
        return float(text)
    except ValueError:
        match = _DURATION.fullmatch(text)
    if not text or match is None:
        return None
    parts = match.groupdict(default="0")
    return sum(float(parts[unit]) * factor for unit, factor in _UNITS.items())


def parse_moment(value: object) -> datetime:
    """The moment, in UTC, that a date with time and time zone (ISO 8601) means.

    Raises:
        ValueError: it is none, or has no time zone; says what it may be.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            try:
                return moment.astimezone(UTC)
            except OverflowError:
                moment = None
    raise ValueError(
        f"{value!r} is no moment: write date, time and time zone, as in 2030-01-31T09:00:00+01:00"
    )
