"""Turns what an agent prints into log lines, within bounds whatever it prints."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_CUT: Final = re.compile(r"(?:\\x[89a-f][0-9a-f]){0,3} … \[[0-9]+ (?:bytes|characters) cut\]\Z")
LEAST_CHARGE: Final = 64
"""What a line counts at least, so that empty lines come to an end too."""


class LogBudget:
    """Counts the bytes that one invocation logs; beyond the limit they are dropped."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self.received = 0
        """Bytes logged by the agent, kept or not."""
        self.dropped = 0

    @property
    def is_spent(self) -> bool:
        return self._left <= 0

    def take(self, size: int) -> bool:
        """Whether a line of ``size`` bytes may still be kept."""
        self.received += size
        charge = max(size, LEAST_CHARGE)
        if charge > self._left:
            self._left = 0
            self.dropped += size
            return False
        self._left -= charge
        return True

    def cut(self, size: int) -> None:
        """Count bytes cut from a line, which says so itself."""
        self.received += size

    def drop(self, size: int) -> None:
        """Count bytes that are thrown away unread."""
        self.received += size
        self.dropped += size


class LineCutter:
    """Cuts a stream of bytes into lines of bounded length.

    Args:
        limit: bytes of the longest line; what is beyond is cut, and the line says so.
        budget: shared with the invocation's other streams.
        emit: gets each line, without its end.
    """

    def __init__(self, limit: int, budget: LogBudget, emit: Callable[[str], None]) -> None:
        self._limit = limit
        self._budget = budget
        self._emit = emit
        self._line = bytearray()
        self._cut = 0

    def feed(self, data: bytes) -> None:
        if self._budget.is_spent:
            self._budget.drop(len(data))
            return
        *complete, rest = data.split(b"\n")
        for part in complete:
            self._append(part)
            self._finish(ending=1)
        self._append(rest)

    def close(self) -> None:
        """Emit what has no line end yet."""
        if self._line or self._cut:
            self._finish(ending=0)

    def _append(self, part: bytes) -> None:
        room = self._limit - len(self._line)
        self._line += part[:room]
        self._cut += max(len(part) - room, 0)

    def _finish(self, ending: int) -> None:
        if self._budget.take(len(self._line) + ending):
            self._emit(line_text(bytes(self._line), self._cut))
        self._budget.cut(self._cut)
        self._line.clear()
        self._cut = 0


def split_cut(text: str) -> tuple[str, str]:
    """A text that may have been cut: what is left of it, and the note that says so or nothing.

    A character that was cut in two, which :func:`line_text` shows as bytes, goes with the note.
    """
    found = _CUT.search(text)
    return (text[: found.start()], found[0]) if found else (text, "")


def line_text(line: bytes, cut: int = 0) -> str:
    """A line as text: no carriage return at its end, bytes that are not UTF-8 shown escaped."""
    text = line.removesuffix(b"\r").decode("utf-8", "backslashreplace")
    return f"{text} … [{cut} bytes cut]" if cut else text
