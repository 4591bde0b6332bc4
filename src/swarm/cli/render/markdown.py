"""Markdown on a terminal. Loaded only there (it imports rich)."""

from __future__ import annotations

from rich.console import Console
from rich.markdown import Markdown

from swarm.cli.terminal import Terminal, clean


def show_markdown(text: str, terminal: Terminal) -> None:
    """Render ``text``. Links are written out, so that what is shown is where they lead."""
    console = Console(
        file=terminal.stream,
        force_terminal=True,
        no_color=not terminal.color,
        width=terminal.width,
        emoji=False,
        markup=False,
    )
    console.print(Markdown(clean(text), hyperlinks=False))
