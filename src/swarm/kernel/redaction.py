"""What must not stand in a report of this process's own failure.

Whoever holds something secret says how to blot it out; whoever writes a report asks for that. The
list is the process's, as a crash is: what crashed may be anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

_redactions: list[Callable[[str], str]] = []


def add_redaction(redaction: Callable[[str], str]) -> None:
    """Have :func:`redacted` pass texts through ``redaction``, for the life of the process."""
    _redactions.append(redaction)


def redacted(text: str) -> str:
    """``text`` without what parts of this process know to be secret."""
    for redaction in _redactions:
        text = redaction(text)
    return text
