"""Times as the database and the wire write them: UTC text with microseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_second = (-1, "")
"""The latest second that was written, since 1970, and its text."""


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def to_text(moment: datetime) -> str:
    """Write an aware time as ``2026-01-31T12:00:00.000000Z`` (sorts as text)."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def from_text(text: str) -> datetime:
    """Read what :func:`to_text` wrote. Raises ValueError on anything else."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def now_text() -> str:
    """The current time as text.

    Every change of a step is given its time. So the text of a second is kept: what is left to be
    written takes a third of what :func:`to_text` takes.
    """
    global _second
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    second, text = _second
    if second != seconds:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = (seconds, text)
    return f"{text}.{nanoseconds // 1000:06}Z"


def ago_text(seconds: float) -> str:
    """The time ``seconds`` before now, as text."""
    return to_text(now() - timedelta(seconds=seconds))
