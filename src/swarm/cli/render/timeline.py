"""A run's Gantt chart in characters; readable without colour."""

from __future__ import annotations

from swarm.cli.render.values import STATE_COLORS, duration
from swarm.cli.terminal import Terminal, cell_width, clean, cut
from swarm.engine.timeline import Row, Span, SpanKind, Timeline, tick_text, ticks
from swarm.store.records import NO_ITEM

MARKS: dict[SpanKind, tuple[str, str, str]] = {
    "attempt": ("█", "#", "attempt"),
    "failed": ("▚", "x", "failed attempt"),
    "running": ("▶", ">", "under way"),
    "pause": ("┄", "~", "pause before the next attempt"),
    "wait": ("░", ".", "waiting"),
    "call": ("▓", "=", "called run"),
    "items": ("─", "-", "items"),
    "reused": ("◆", "o", "result taken over"),
}
"""How each kind of span is drawn, with and without Unicode, and what it is."""
SPAN_COLORS: dict[SpanKind, str] = {
    "attempt": "green",
    "failed": "red",
    "running": "cyan",
    "pause": "bright_black",
    "wait": "magenta",
    "call": "blue",
    "items": "bright_black",
    "reused": "yellow",
}
CRITICAL = "*"
LONGEST_LABEL = 32
SMALLEST_CHART = 10
TICK_COLUMNS = 12
"""Columns of the chart for each tick, at least."""
TOOK_COLUMNS = 13
_BLANKS = str.maketrans("\n\t", "  ")


def timeline_lines(timeline: Timeline, terminal: Terminal, width: int) -> list[str]:
    """The chart in at most ``width`` columns: an axis, a line for each row, and a legend."""
    labels = [row_label(row) for row in timeline.rows]
    room = max(min(max(map(cell_width, labels), default=0), LONGEST_LABEL, width // 4), 4)
    columns = max(width - room - TOOK_COLUMNS - 5, SMALLEST_CHART)
    ellipsis = terminal.symbol("…", "~")
    margin = " " * (room + 3)
    lines = [margin + line for line in _axis(timeline, columns, terminal)]
    for row, label in zip(timeline.rows, labels, strict=True):
        text = cut(label, room, ellipsis)
        mark = CRITICAL if row.is_critical else " "
        padding = " " * (room - cell_width(text))
        name = terminal.style(text, STATE_COLORS.get(row.state), bold=row.is_critical)
        bar = _bar(row, timeline.seconds, columns, terminal)
        lines.append(f"{mark} {name}{padding} {bar}  {_took(row)}".rstrip())
    return [*lines, "", *_legend(timeline, terminal, width)]


def row_label(row: Row) -> str:
    """``build``, ``build[3]`` for an item, or how many items are folded."""
    if row.folded:
        return f"  and {row.folded:,} more items"
    name = clean(row.step_id).translate(_BLANKS)
    return name if row.item_index == NO_ITEM else f"  {name}[{row.item_index}]"


def _axis(timeline: Timeline, columns: int, terminal: Terminal) -> list[str]:
    """The moments above the chart, and the marks below them."""
    words = [" "] * columns
    marks = [terminal.symbol("─", "-")] * columns
    free = 0
    for moment in ticks(timeline.seconds, columns // TICK_COLUMNS):
        at = _column(moment, timeline.seconds, columns)
        text = tick_text(moment)
        marks[at] = terminal.symbol("┬", "+")
        if at >= free and at + len(text) <= columns:
            words[at : at + len(text)] = text
            free = at + len(text) + 1
    return ["".join(words).rstrip(), terminal.style("".join(marks), "dim")]


def _column(moment: float, seconds: float, columns: int) -> int:
    return min(int(moment / seconds * columns), columns - 1)


def _bar(row: Row, seconds: float, columns: int, terminal: Terminal) -> str:
    """The spans of a row; each takes a column at least, and a later one goes before."""
    cells: list[Span | None] = [None] * columns
    for span in row.spans:
        first = _column(span.start, seconds, columns)
        last = max(_column(span.end, seconds, columns + 1) - 1, first)
        for index in range(first, min(last, columns - 1) + 1):
            cells[index] = span
    parts: list[str] = []
    begin = 0
    for index in range(1, columns + 1):
        if index == columns or cells[index] is not cells[begin]:
            parts.append(_drawn(cells[begin], index - begin, terminal))
            begin = index
    return "".join(parts)


def _drawn(span: Span | None, length: int, terminal: Terminal) -> str:
    if span is None:
        return " " * length
    unicode, ascii_, _ = MARKS[span.kind]
    return terminal.style(terminal.symbol(unicode, ascii_) * length, SPAN_COLORS[span.kind])


def _took(row: Row) -> str:
    if row.start is None or row.end is None:
        return row.state
    if row.spans[0].kind == "reused":
        return ""
    return duration((row.end - row.start) * 1000)


def _legend(timeline: Timeline, terminal: Terminal, width: int) -> list[str]:
    """What the characters mean, as far as they are used."""
    used = {span.kind for row in timeline.rows for span in row.spans}
    entries = [
        (terminal.symbol(unicode, ascii_), text, SPAN_COLORS[kind])
        for kind, (unicode, ascii_, text) in MARKS.items()
        if kind in used
    ]
    lines: list[str] = []
    line, length = "", 0
    for mark, text, color in [*entries, (CRITICAL, "critical path", "")]:
        size = len(mark) + len(text) + 4
        if line and length + size > width:
            lines.append(line.rstrip())
            line, length = "", 0
        line += f"{terminal.style(mark, color or None)} {text}   "
        length += size
    return [*lines, line.rstrip()]
