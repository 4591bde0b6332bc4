"""The option ``--isolation``, and the warning that goes with ``none``."""

from __future__ import annotations

import click

from swarm.cli.output import warn
from swarm.sandbox.ports import Isolation

isolation_option = click.option(
    "--isolation",
    type=click.Choice([str(level) for level in Isolation]),
    default=str(Isolation.SANDBOX),
    show_default=True,
    help="How strong the wall around each agent is. `none` runs agents as ordinary processes.",
)


def warn_unisolated(level: Isolation) -> None:
    """Say loudly what ``none`` means."""
    if level is Isolation.NONE:
        warn(
            "--isolation none: agents run as ordinary processes of this user, with access to its"
            " files and its network; this is recorded on every step"
        )
