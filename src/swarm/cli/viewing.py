"""How the user wants to see a run: the options that all commands which follow runs share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

import click

from swarm.cli.lazy import load
from swarm.cli.options import Globals
from swarm.cli.render.lines import JsonLinesDisplay, LineDisplay, QuietDisplay
from swarm.cli.render.progress import RunView
from swarm.cli.terminal import stderr
from swarm.engine.events import RunEvent

LIVE_VIEW = "swarm.cli.render.live:LiveDisplay"


class Display(Protocol):
    """Shows a run while it is followed."""

    view: RunView

    def __enter__(self) -> Any: ...

    def __exit__(self, *reason: Any) -> None: ...

    def show(self, event: RunEvent) -> None: ...

    def note(self, message: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Viewing:
    """What the options said."""

    json: bool = False
    """One document at the end."""
    events: bool = False
    """JSON Lines while it goes on."""
    quiet: bool = False
    logs: bool = False
    """Show every line that the agents log."""
    save: Path | None = None
    """Where copies of the files go; None: below the home."""

    def display(self, view: RunView, prefix: str = "") -> Display:
        """The display that fits these wishes and the terminal."""
        terminal = stderr()
        if self.events:
            return JsonLinesDisplay(view)
        if self.quiet:
            return QuietDisplay(view, terminal)
        redraws = terminal.is_terminal and os.environ.get("TERM", "dumb") != "dumb"
        if redraws and not self.logs and not prefix:
            live: Display = load(LIVE_VIEW)(view, terminal)
            return live
        return LineDisplay(view, terminal, logs=self.logs, prefix=prefix)


_OPTIONS = (
    click.option(
        "--events",
        is_flag=True,
        help="Print the run's events on standard output as JSON Lines, while it goes on.",
    ),
    click.option("--quiet", is_flag=True, help="Show no progress, only the result."),
    click.option(
        "--logs", is_flag=True, help="Show progress as lines, with all that the agents log."
    ),
    click.option(
        "--save",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="FOLDER",
        help="Folder for the files that the run gives; by default one below the home.",
    ),
)
_DETACH = click.option(
    "--detach", is_flag=True, help="Leave the run to a background worker and print its id."
)


def viewing_options(
    function: Callable[..., Any] | None = None, *, detach: bool = True
) -> Callable[..., Any]:
    """Give a command the options that make a :class:`Viewing`, passed to it as ``viewing``."""
    if function is None:
        return lambda decorated: viewing_options(decorated, detach=detach)
    inner = function

    @wraps(inner)
    def call(
        *args: Any, events: bool, quiet: bool, logs: bool, save: Path | None, **kwargs: Any
    ) -> Any:
        options = click.get_current_context().find_object(Globals) or Globals()
        if events and options.json:
            raise click.UsageError("--events and --json exclude each other")
        if quiet and logs:
            raise click.UsageError("--quiet and --logs exclude each other")
        if kwargs.get("detach") and (events or quiet or logs or save):
            raise click.UsageError("--detach shows nothing; leave out how to show it")
        viewing = Viewing(json=options.json, events=events, quiet=quiet, logs=logs, save=save)
        return inner(*args, viewing=viewing, **kwargs)

    decorated: Callable[..., Any] = call
    for option in (*((_DETACH,) if detach else ()), *_OPTIONS)[::-1]:
        decorated = option(decorated)
    return decorated
