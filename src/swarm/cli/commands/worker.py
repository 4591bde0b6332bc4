"""``swarm worker``"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys

import click

from swarm.bootstrap.allocator import bound_arenas
from swarm.bootstrap.health import watched
from swarm.bootstrap.tidying import tidying
from swarm.cli.context import asynchronous
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json
from swarm.cli.session import session
from swarm.cli.signals import cancelled_by_signals
from swarm.cli.terminal import stderr, stdout
from swarm.definitions.fields import MAX_LABEL_CHARACTERS, WORKER_LABEL_PATTERN
from swarm.kernel.errors import ExitCode, InvalidError


@click.command("worker", cls=SwarmCommand)
@click.option("--until-idle", is_flag=True, help="End when there has been no run for a while.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL",
    help="What this machine has that a run may ask for with `runs_on`, such as gpu; repeatable.",
)
@pass_globals
@asynchronous
async def worker(options: Globals, until_idle: bool, labels: tuple[str, ...]) -> int:
    """Drive runs until stopped: interrupted ones, and those that other commands hand over.

    Prints `ready` once it can be reached. When it is stopped, the runs on their way are left for
    the next process that drives runs; with a PostgreSQL database it takes no more of them, and lets
    those on their way end for `SWARM_DRAIN_SECONDS` first (a second signal stops it at once). As a
    systemd service of Type=notify it says when it is ready.
    """

    bound_arenas()
    interrupted = False
    async with (
        session(options, "worker", checked_labels(labels)) as swarm,
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
        if interrupted:
            with cancelled_by_signals(), contextlib.suppress(asyncio.CancelledError):
                await swarm.runs.drain()
        left = sorted(swarm.runs.driving)
    if left:
        note(f"left to be resumed: {' '.join(left)}")
    if options.json:
        print_json({"left": left, "interrupted": interrupted})
    sys.stdout.flush()
    return ExitCode.OK


def checked_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels of a worker.

    Raises:
        InvalidError: a run could not ask for one of them.
    """
    for label in labels:
        if re.fullmatch(WORKER_LABEL_PATTERN, label) is None or len(label) > MAX_LABEL_CHARACTERS:
            raise InvalidError(
                f"`{label}` cannot be a worker's label: up to {MAX_LABEL_CHARACTERS} letters, "
                "digits, and . _ : - inside",
                remedy="write a label such as gpu or team:x",
            )
    return tuple(sorted(set(labels)))
