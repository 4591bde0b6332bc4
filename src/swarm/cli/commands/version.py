"""``swarm version``"""

from __future__ import annotations

import platform

import click

from swarm import __version__
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines


@click.command("version", cls=SwarmCommand)
@pass_globals
def version(options: Globals) -> None:
    """Print the version."""
    if options.json:
        print_json(
            {
                "version": __version__,
                "python": platform.python_version(),
                "system": platform.system(),
                "machine": platform.machine(),
            }
        )
    else:
        print_lines([f"swarm {__version__}"])
