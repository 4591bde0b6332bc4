"""Standard output and standard error: colours, symbols, closed pipes, hostile text."""

from __future__ import annotations

import os
import sys
import unicodedata
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any, TextIO

import click

DEFAULT_WIDTH = 100
"""Columns, where the terminal does not tell."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that reorder what is displayed (Trojan Source, CVE-2021-42574)."""


def clean(text: str) -> str:
    """``text`` without what could drive a terminal.

    Agents' logs, names and errors are shown as they are; escape sequences, control characters
    (but newline and tab), direction overrides and lone surrogates become visible escapes.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\n\t" or (character.isprintable() and character not in _BIDI):
        return character
    if unicodedata.category(character) in ("Zs", "Co"):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()


def encodable(value: Any) -> Any:
    """A JSON value with lone surrogates (undecodable file names) written as escapes."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(item) for item in value]
    return value


def cell_width(text: str) -> int:
    """How many terminal columns ``text`` takes (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(character) else _columns(character) for character in text)


def _columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int, ellipsis: str = "…") -> str:
    """``text`` in at most ``width`` columns, an ellipsis standing for what is cut."""
    if cell_width(text) <= width:
        return text
    room = width - cell_width(ellipsis)
    if room < 0:
        return ""
    kept, used = [], 0
    for character in text:
        used += cell_width(character)
        if used > room:
            break
        kept.append(character)
    return "".join(kept) + ellipsis


@dataclass(frozen=True, slots=True)
class Terminal:
    """One of the two output streams and what may be written to it."""

    stream: TextIO
    is_terminal: bool
    color: bool
    unicode: bool
    width: int
    """Columns; what is not a terminal is not cut to it."""

    @classmethod
    def of(cls, stream: TextIO) -> Terminal:
        is_terminal = stream.isatty()
        encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
        return cls(
            stream=stream,
            is_terminal=is_terminal,
            color=_wants_color(is_terminal),
            unicode=encoding.startswith("utf"),
            width=_columns_of(stream) if is_terminal else DEFAULT_WIDTH,
        )

    def line(self, text: str = "") -> None:
        """Write one line. The text is written as it is: :func:`clean` what others wrote."""
        self.stream.write(text + "\n")

    def flush(self) -> None:
        self.stream.flush()

    def style(self, text: str, color: str | None = None, *, bold: bool = False) -> str:
        """``text`` coloured, where colours are wanted. ``color`` is a click colour or ``dim``."""
        if not self.color:
            return text
        if color == "dim":
            return click.style(text, dim=True)
        return click.style(text, fg=color, bold=bold or None)

    def symbol(self, unicode: str, ascii_: str) -> str:
        return unicode if self.unicode else ascii_


def _columns_of(stream: TextIO) -> int:
    """The width of the terminal behind ``stream``; ``COLUMNS`` overrides it."""
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except (OSError, ValueError):  # no descriptor, or not a terminal after all
        return DEFAULT_WIDTH


def _wants_color(is_terminal: bool) -> bool:
    """``NO_COLOR`` (no-color.org) wins over ``FORCE_COLOR`` (force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal and os.environ.get("TERM") != "dumb"


def stdout() -> Terminal:
    """Results: what a pipe wants."""
    return Terminal.of(sys.stdout)


def stderr() -> Terminal:
    """Progress, hints, warnings and errors."""
    return Terminal.of(sys.stderr)


def prepare_streams() -> None:
    """Make writing never fail for a character that the stream's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_closed_pipe() -> None:
    """After a broken pipe: let Python's own flush at exit write to nowhere."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
