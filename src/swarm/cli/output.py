"""What commands print: one JSON document for machines, tables and lines for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import orjson
from msgspec import Struct, structs

from swarm.cli.terminal import encodable, stderr, stdout


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document, indented, on standard output."""
    data = orjson.dumps(encodable(document), option=orjson.OPT_INDENT_2, default=_plain)
    stdout().line(data.decode())


def print_json_line(document: Mapping[str, Any]) -> None:
    """Print one line of a JSON Lines stream, and send it on at once."""
    terminal = stdout()
    terminal.line(orjson.dumps(encodable(document), default=_plain).decode())
    terminal.flush()


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return encodable(dataclasses.asdict(value))
    if isinstance(value, Struct):
        return encodable(structs.asdict(value))
    if isinstance(value, frozenset | set):
        return sorted(value)
    return str(value)


def print_lines(lines: Sequence[str]) -> None:
    """Print lines of a result on standard output."""
    terminal = stdout()
    for line in lines:
        terminal.line(line)


def warn(message: str) -> None:
    """Print a warning on standard error."""
    terminal = stderr()
    terminal.line(f"{terminal.style('warning:', 'yellow', bold=True)} {message}")
    terminal.flush()


def note(message: str) -> None:
    """Print a remark on standard error."""
    terminal = stderr()
    terminal.line(message)
    terminal.flush()
