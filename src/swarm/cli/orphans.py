"""Telling of interrupted runs, without touching them."""

from __future__ import annotations

from swarm.bootstrap.records import Records
from swarm.cli.options import Globals
from swarm.cli.output import note
from swarm.cli.render.values import plural


async def hint_orphans(records: Records, options: Globals) -> None:
    """Say on standard error how many runs were interrupted, if any were."""
    orphans = await records.orphans()
    if orphans and not options.json:
        was = "was" if len(orphans) == 1 else "were"
        note(f"{plural(len(orphans), 'run')} {was} interrupted: swarm runs resume")
