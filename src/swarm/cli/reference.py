"""The command-line reference, generated: ``python -m swarm.cli.reference`` prints Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from swarm.cli.lazy import LazyGroup
from swarm.cli.main import root
from swarm.cli.options import HOME_OPTION, JSON_OPTION

INTRODUCTION = """\
# Command line

Every command takes `--home`, `--json` and `--help`:

- `--home FOLDER`: {home}
- `--json`: {json}

Results go to standard output, everything else to standard error. With `--json` an error is also
an object on standard output: `{{"error": {{"code", "message", "where", "remedy", "exit_code"}}}}`.

`swarm-agent`, `swarm-workflow` and `swarm-run` are `swarm agent`, `swarm workflow` and `swarm run`
under names of their own.

Colours are used on terminals; `NO_COLOR=1` turns them off and `FORCE_COLOR=1` turns them on.
`SWARM_DEBUG=1` shows the traceback of an unexpected error, which is else only written to a file.

| exit code | means |
|---|---|
| 0 | ok |
| 1 | it failed: a run or an agent, or Swarm itself |
| 2 | usage, or something given is malformed |
| 3 | not found |
| 4 | refused by a rule or a missing grant |
| 5 | this machine or installation cannot do it |
| 130 | interrupted |
"""


def markdown() -> str:
    """The reference of every command, as Markdown."""
    context = click.Context(root(), info_name="swarm")
    parts = [INTRODUCTION.format(home=HOME_OPTION.help, json=JSON_OPTION.help)]
    parts += [_section(context, command) for context, command in _commands(context)]
    return "\n".join(parts)


def _commands(context: click.Context) -> Iterator[tuple[click.Context, click.Command]]:
    """Every command below ``context``, groups left out, in the order of the table."""
    group = context.command
    if not isinstance(group, LazyGroup):
        yield context, group
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            settings = command.context_settings
            yield from _commands(click.Context(command, info_name=name, parent=context, **settings))


def _section(context: click.Context, command: click.Command) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f"## {context.command_path}", "", "```text", usage, "```", "", _help(command)]
    rows = [
        record
        for parameter in command.get_params(context)
        if parameter not in (HOME_OPTION, JSON_OPTION)
        and (record := parameter.get_help_record(context)) is not None
        and record[1]
        and not record[0].startswith("-h,")
    ]
    if rows:
        lines += ["", "| option | meaning |", "|---|---|"]
        lines += [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in rows]
    return "\n".join([*lines, ""])


def _help(command: click.Command) -> str:
    """The command's help as paragraphs; what is marked as preformatted becomes a code block."""
    paragraphs = (command.help or "").strip().split("\n\n")
    written = []
    for paragraph in paragraphs:
        lines = [line.strip() for line in paragraph.splitlines()]
        if lines and lines[0] == "\b":
            written.append("\n".join(["```text", *lines[1:], "```"]))
        else:
            written.append("\n".join(lines))
    return "\n\n".join(written)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(markdown())
