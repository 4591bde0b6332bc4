"""Moments and lengths of time on the command line."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import click

from swarm.definitions.times import parse_duration
from swarm.kernel.clock import now, to_text

FORMS = "a length of time such as 90m or 7d, or a date such as 2030-01-31 or 2030-01-31T09:00"


def past_moment(text: str) -> str:
    """The UTC text of a moment: so long ago, or a date; without a time zone, this machine's.

    Raises:
        ValueError: it is neither; says what it may be.
    """
    try:
        moment = now() - timedelta(seconds=unit_seconds(text))
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.strip()).astimezone()
        except (ValueError, OverflowError):
            raise ValueError(f"{text!r} is no moment: give {FORMS}") from None
    return to_text(moment)


def unit_seconds(text: str) -> float:
    """The seconds of a length of time that names its unit: a bare number could mean anything.

    Raises:
        ValueError: it is none; says what it may be.
    """
    if not text.strip()[-1:].isalpha():
        raise ValueError(f"{text!r} is no length of time: name its unit, as in 90m or 7d")
    return parse_duration(text)


class Moment(click.ParamType[str]):
    """A moment in the past, as UTC text."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return past_moment(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Duration(click.ParamType[float]):
    """A length of time, in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            return unit_seconds(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


MOMENT = Moment()
DURATION = Duration()
