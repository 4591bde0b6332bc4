"""A home open for work: its catalog, runs and sandboxes."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.cli.context import read_settings
from swarm.cli.options import Globals


def session(
    options: Globals, role: str = "cli", labels: tuple[str, ...] = ()
) -> AbstractAsyncContextManager[Swarm]:
    """Open the home that the command line names, as a host of ``role`` once it drives runs, with
    ``labels`` that runs may ask for."""
    return open_swarm(read_settings(options), role=role, labels=labels)
