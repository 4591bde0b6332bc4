"""Options that every command has: ``--home`` and ``--json``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

HELP_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


@dataclass
class Globals:
    """What the command line said for the whole process."""

    home: Path | None = None
    """``--home``; None leaves it to ``SWARM_HOME``."""
    json: bool = False
    """``--json``: one JSON document on standard output."""

    def home_folder(self) -> Path:
        """The home, without reading any setting (the error boundary must not fail)."""
        return (self.home or Path(os.environ.get("SWARM_HOME") or "~/.swarm")).expanduser()

    def environment(self) -> dict[str, str]:
        """The environment that settings are read from."""
        return {**os.environ, "SWARM_HOME": str(self.home)} if self.home else dict(os.environ)


pass_globals = click.make_pass_decorator(Globals, ensure=True)


def _set_home(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(Globals).home = value.absolute()


def _set_json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Globals).json = True


HOME_OPTION = click.Option(
    ["--home"],
    type=click.Path(file_okay=False, path_type=Path),
    callback=_set_home,
    expose_value=False,
    help="Folder that holds everything Swarm keeps (else SWARM_HOME, else ~/.swarm).",
)
JSON_OPTION = click.Option(
    ["--json"],
    is_flag=True,
    callback=_set_json,
    expose_value=False,
    help="Print one JSON document on standard output; everything else goes to standard error.",
)


class SwarmCommand(click.Command):
    """A command with the options that all of them have."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        attributes["context_settings"] = {
            **HELP_SETTINGS,
            **(attributes.get("context_settings") or {}),
        }
        super().__init__(*args, **attributes)
        self.params += [HOME_OPTION, JSON_OPTION]
