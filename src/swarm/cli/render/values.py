"""Durations, sizes and times as people read them."""

from __future__ import annotations

from datetime import datetime

from swarm.kernel.clock import from_text

STATE_COLORS = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "waiting": "magenta",
    "skipped": "bright_black",
    "pending": "bright_black",
}


def duration(milliseconds: float | None) -> str:
    """``12 ms``, ``1.2 s``, ``3 min 04 s`` or ``2 h 05 min``; nothing for None."""
    if milliseconds is None:
        return ""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(count: int | None) -> str:
    """``512 B``, ``4.2 KiB``, ``1.0 GiB``; nothing for None."""
    if count is None:
        return ""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def local_time(text: str | None) -> str:
    """A recorded time in the machine's zone, to the second; nothing for None or an empty one."""
    return _local(text).strftime("%Y-%m-%d %H:%M:%S") if text else ""


def local_clock(text: str | None) -> str:
    """The time of day of a recorded time in the machine's zone, ``12:00:01``."""
    return _local(text).strftime("%H:%M:%S") if text else "--:--:--"


def elapsed_ms(started: str | None, ended: str | None) -> float | None:
    """Milliseconds between two recorded times, if both are there."""
    if not started or not ended:
        return None
    return (from_text(ended) - from_text(started)).total_seconds() * 1000


def plural(count: int, noun: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _local(text: str) -> datetime:
    return from_text(text).astimezone()
