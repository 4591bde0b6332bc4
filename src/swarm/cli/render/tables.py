"""Tables in plain text: aligned columns, cut to the terminal, whole in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarm.cli.terminal import Terminal, cell_width, clean, cut

GAP = "  "
INDENT = "    "
SMALLEST_LAST_COLUMN = 12
"""Columns below which the last cell is not cut further; the line wraps instead."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell with a colour of its own."""

    text: str
    color: str | None = None


def table(
    terminal: Terminal, headers: Sequence[str], rows: Sequence[Sequence[Cell | str]]
) -> list[str]:
    """The lines of a table; cells are cleaned, and the last column is cut to the terminal.

    A last column without a header that finds no room goes below, on lines of its own.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(cell_width(text) for text in (header, *(row[index].text for row in cells)))
        for index, header in enumerate(headers)
    ]
    below: list[Cell] = []
    if terminal.is_terminal:
        room = terminal.width - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)
        if not headers[-1] and widths[-1] > room and room < SMALLEST_LAST_COLUMN:
            below = [row.pop() for row in cells]
            widths, headers = widths[:-1], headers[:-1]
        else:
            widths[-1] = min(widths[-1], max(room, SMALLEST_LAST_COLUMN))
    ellipsis = terminal.symbol("…", "...")
    head = GAP.join(_pad(header, width) for header, width in zip(headers, widths, strict=True))
    lines = [terminal.style(head.rstrip(), bold=True)] if any(headers) else []
    for index, row in enumerate(cells):
        parts = []
        for cell, width in zip(row, widths, strict=True):
            text = cut(cell.text, width, ellipsis)
            padding = " " * (width - cell_width(text))
            parts.append((terminal.style(text, cell.color) if cell.color else text) + padding)
        lines.append(GAP.join(parts).rstrip())
        if below and below[index].text:
            lines.append(INDENT + cut(below[index].text, terminal.width - len(INDENT), ellipsis))
    return lines


def facts(terminal: Terminal, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of ``name  value``; pairs without a value are left out."""
    kept = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in kept), default=0)
    return [f"{terminal.style(name.ljust(width), 'dim')}  {clean(value)}" for name, value in kept]


def _cell(value: Cell | str) -> Cell:
    cell = value if isinstance(value, Cell) else Cell(value)
    return Cell(" ".join(clean(cell.text).split("\n")), cell.color)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - cell_width(text))
