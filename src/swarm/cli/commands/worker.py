"""``swarm worker``"""

from __future__ import annotations

import asyncio
import sys

import click

from swarm.bootstrap.health import watched
from swarm.bootstrap.tidying import tidying
from swarm.cli.context import asynchronous
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json
from swarm.cli.session import session
from swarm.cli.signals import cancelled_by_signals
from swarm.cli.terminal import stderr, stdout
from swarm.kernel.errors import ExitCode


@click.command("worker", cls=SwarmCommand)
@click.option("--until-idle", is_flag=True, help="End when there has been no run for a while.")
@pass_globals
@asynchronous
async def worker(options: Globals, until_idle: bool) -> int:
    """Drive runs until stopped: interrupted ones, and those that other commands hand over.

    Prints `ready` once it can be reached. When it is stopped, the runs on their way are left for
    the next process that drives runs. As a systemd service of Type=notify it says when it is ready.
    """

    interrupted = False
    async with (
        session(options, "worker") as swarm,
        watched(swarm, is_service=not until_idle) as health,
        tidying(swarm),
    ):

        def ready() -> None:
            health.ready()
            terminal = stderr() if options.json else stdout()
            terminal.line("ready")
            terminal.flush()

        with cancelled_by_signals():
            try:
                await swarm.runs.work(until_idle, ready)
            except asyncio.CancelledError:
                interrupted = True
        health.draining()
        left = sorted(swarm.runs.driving)
    if left:
        note(f"left to be resumed: {' '.join(left)}")
    if options.json:
        print_json({"left": left, "interrupted": interrupted})
    sys.stdout.flush()
    return ExitCode.OK
