"""Commands and heavy views are imported when they are used, from tables of ``module:attribute``.

``swarm --help`` reads only the table: it must not pay for pydantic, asyncio or rich. This is the
one place where Swarm imports late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from swarm.cli.options import HELP_SETTINGS, HOME_OPTION, JSON_OPTION
from swarm.kernel.errors import nearest_names


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a command table: a command to load, or a group with a table of its own."""

    help: str
    target: str | None = None
    """``module:attribute`` of a click command."""
    commands: Mapping[str, Entry] = field(default_factory=dict)
    section: str = "Commands"
    """The heading that it stands under in the group's help."""


def load(target: str) -> Any:
    """Import ``module:attribute``."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


class LazyGroup(click.Group):
    """A group whose help and completion need nothing but its table."""

    def __init__(self, name: str, table: Mapping[str, Entry], **attributes: Any) -> None:
        super().__init__(name, context_settings=HELP_SETTINGS, **attributes)
        self.table = table
        self.params += [HOME_OPTION, JSON_OPTION]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.table.get(cmd_name)
        return None if entry is None else resolve(cmd_name, entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.table and not name.startswith("-") and not ctx.resilient_parsing:
            offered = " or ".join(nearest_names(name, self.table))
            hint = f" Did you mean {offered}?" if offered else ""
            raise click.UsageError(f"no such command: {name}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in self.table.items():
            sections.setdefault(entry.section, []).append((name, entry.help))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=entry.help)
            for name, entry in self.table.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def resolve(name: str, entry: Entry) -> click.Command:
    """The command or group of a table's line."""
    if entry.target is None:
        return LazyGroup(name, entry.commands, help=entry.help)
    command: click.Command = load(entry.target)
    return command
