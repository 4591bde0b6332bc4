"""Times as the database and the wire write them: UTC text with microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


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
    """The current time as text."""
    return to_text(now())


def ago_text(seconds: float) -> str:
    """The time ``seconds`` before now, as text."""
    return to_text(now() - timedelta(seconds=seconds))
