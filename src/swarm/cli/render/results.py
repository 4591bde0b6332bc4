"""What a run gave, for people: the report, the values, and where the files are kept."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from swarm.cli.files import KeptFile
from swarm.cli.lazy import load
from swarm.cli.render.tables import table
from swarm.cli.render.values import plural, size
from swarm.cli.terminal import Terminal, clean
from swarm.definitions.files import is_file_value
from swarm.kernel.json import JsonObject, JsonValue

MAX_SHOWN_BYTES = 64 * 1024
"""How much of a text is printed; the rest is where the file is kept."""
MAX_VALUE_LINES = 60
"""Lines of one output's JSON that are printed."""
MAX_LINE_CHARACTERS = 2_000
"""Of one line of a value."""
MARKDOWN = "text/markdown"
MARKDOWN_VIEW = "swarm.cli.render.markdown:show_markdown"


def show_result(terminal: Terminal, outputs: JsonObject, kept: Sequence[KeptFile]) -> None:
    """Print the outputs of a run that succeeded.

    The first Markdown file is printed as the report, rendered on a terminal; else an output called
    ``summary``, if it is text. The other values follow, then the files with their places.
    """
    report = next((file for file in kept if file.media_type == MARKDOWN), None)
    summary = outputs.get("summary")
    if report is None:
        report = next((file for file in kept if file.media_type == "text/plain"), None)
    shown: set[str] = set()
    if isinstance(summary, str):
        shown.add("summary")
        show_text(terminal, summary, markdown=True)
    if report is not None:
        if shown:
            terminal.line()
        _show_file(terminal, report)
    values = {
        name: value
        for name, value in outputs.items()
        if name not in shown and value is not None and not is_file_value(value)
    }
    if values:
        if shown or report:
            terminal.line()
        show_values(terminal, values)
    if kept:
        if values or shown or report:
            terminal.line()
        show_files(terminal, kept)


def show_text(terminal: Terminal, text: str, *, markdown: bool) -> None:
    """Print a text; Markdown is rendered on a terminal, and left as it is elsewhere."""
    if markdown and terminal.is_terminal:
        load(MARKDOWN_VIEW)(text, terminal)
    else:
        terminal.line(clean(text).rstrip("\n"))


def show_files(terminal: Terminal, kept: Sequence[KeptFile]) -> None:
    """Print where the files are kept. Paths are never cut: they are there to be copied."""
    rows = [[file.output, size(file.size), str(file.path)] for file in kept]
    width = max(len(str(file.path)) for file in kept)
    whole = Terminal(
        terminal.stream,
        is_terminal=False,
        color=terminal.color,
        unicode=terminal.unicode,
        width=width,
    )
    for line in table(whole, ["FILE", "SIZE", "KEPT AT"], rows):
        terminal.line(line)


def _show_file(terminal: Terminal, file: KeptFile) -> None:
    with file.path.open("rb") as stream:
        data = stream.read(MAX_SHOWN_BYTES + 1)
    text = data[:MAX_SHOWN_BYTES].decode(errors="replace")
    show_text(terminal, text, markdown=file.media_type == MARKDOWN)
    if len(data) > MAX_SHOWN_BYTES:
        rest = size((file.size or len(data)) - MAX_SHOWN_BYTES)
        terminal.line(terminal.style(f"({rest} more in {file.path})", "dim"))


def show_values(terminal: Terminal, values: JsonObject) -> None:
    """Print values by name, each cut to what a screen bears."""
    width = max(len(name) for name, value in values.items())
    for name, value in values.items():
        lines = _value_lines(value)
        head = terminal.style(name.ljust(width), bold=True)
        if len(lines) == 1:
            terminal.line(f"{head}  {lines[0]}")
            continue
        terminal.line(head.rstrip())
        for line in lines[:MAX_VALUE_LINES]:
            terminal.line(f"  {line}")
        if len(lines) > MAX_VALUE_LINES:
            more = plural(len(lines) - MAX_VALUE_LINES, "more line")
            terminal.line(terminal.style(f"  ({more}; --json prints everything)", "dim"))


def _value_lines(value: JsonValue) -> list[str]:
    """A value on lines of text: strings as they are, everything else as JSON."""
    if isinstance(value, str):
        lines = value.splitlines() or [""]
    else:
        lines = [orjson.dumps(value).decode()]
        if len(lines[0]) > 80:
            lines = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode().splitlines()
    return [_shortened(line) for line in lines]


def _shortened(line: str) -> str:
    if len(line) <= MAX_LINE_CHARACTERS:
        return clean(line)
    more = plural(len(line) - MAX_LINE_CHARACTERS, "more character")
    return f"{clean(line[:MAX_LINE_CHARACTERS])}… ({more}; --json prints everything)"
