"""``swarm db fetch|publish``"""

from __future__ import annotations

from dataclasses import asdict

import click

from swarm.bootstrap.sharing import Moved, bring_home, publish_home
from swarm.cli.context import asynchronous
from swarm.cli.copying import telling
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines
from swarm.cli.render.values import plural
from swarm.cli.session import session
from swarm.cli.terminal import clean
from swarm.kernel.errors import ExitCode


@click.command("publish", cls=SwarmCommand)
@pass_globals
@asynchronous
async def publish(options: Globals) -> int:
    """Have other machines find the files of this home.

    For a home whose records were copied to PostgreSQL: every package and artifact of it that they
    refer to is published. What is registered and put from then on is published by itself.
    """
    async with session(options, "run") as swarm, telling("publishing"):
        moved = await publish_home(swarm)
    return _report_moved(options, moved, "published")


@click.command("fetch", cls=SwarmCommand)
@pass_globals
@asynchronous
async def fetch(options: Globals) -> int:
    """Bring all files that other machines have published into this home.

    For a home whose records are to be copied back to SQLite, or one that is to work apart. Give
    SWARM_ARTIFACT_CACHE_MB room for all of them.
    """
    async with session(options, "run") as swarm, telling("fetching"):
        moved = await bring_home(swarm)
    return _report_moved(options, moved, "here")


def _report_moved(options: Globals, moved: Moved, deed: str) -> int:
    if options.json:
        print_json(asdict(moved))
    else:
        packages, artifacts = plural(moved.packages, "package"), plural(moved.artifacts, "artifact")
        print_lines([f"{packages} and {artifacts} {deed}"])
        print_lines([clean(f"missing: {line}") for line in moved.missing])
    return ExitCode.FAILED if moved.missing else ExitCode.OK
