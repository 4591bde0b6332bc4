"""``swarm runs resume|cancel``: what changes runs."""

from __future__ import annotations

import asyncio

import click

from swarm.bootstrap.tidying import tidying
from swarm.cli.arguments import RUN
from swarm.cli.context import asynchronous
from swarm.cli.documents import run_summary
from swarm.cli.driving import follow_runs
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.session import session
from swarm.cli.viewing import Viewing, viewing_options
from swarm.kernel.errors import ExitCode
from swarm.store.records import RunState


@click.command("resume", cls=SwarmCommand)
@click.argument("run_ids", nargs=-1, type=RUN, metavar="[RUN]...")
@click.option(
    "--latest",
    is_flag=True,
    help="Of named runs that failed or were cancelled: use the agents and called workflows that "
    "are registered now, so that what was mended is used.",
)
@viewing_options(detach=False)
@pass_globals
@asynchronous
async def resume(options: Globals, run_ids: tuple[str, ...], latest: bool, viewing: Viewing) -> int:
    """Carry on interrupted, failed or cancelled runs; finished steps are not run again.

    Without RUN, every run whose process has ended is carried on. RUN is an id or the start of one.
    """
    if latest and not run_ids:
        raise click.UsageError("--latest needs the runs to be named")
    async with session(options, "run") as swarm, tidying(swarm):
        runs = await swarm.runs.resume(run_ids, latest=latest)
        if not runs:
            if options.json:
                print_json({"runs": []})
            else:
                note("no run was interrupted")
            return ExitCode.OK
        return await follow_runs(swarm, runs, viewing)


@click.command("cancel", cls=SwarmCommand)
@click.argument("run_ids", nargs=-1, required=True, type=RUN, metavar="RUN...")
@pass_globals
@asynchronous
async def cancel(options: Globals, run_ids: tuple[str, ...]) -> None:
    """Stop runs, wherever they are driven, with clean-up.

    RUN is an id or the start of one. A run that has ended is left as it is.
    """
    async with session(options) as swarm:
        runs = await asyncio.gather(*(swarm.runs.cancel(run_id) for run_id in run_ids))
    if options.json:
        print_json({"runs": [run_summary(run) for run in runs]})
        return
    for run in runs:
        had = "" if run.status is RunState.CANCELLED else "had already ended: "
        print_lines([f"{run.id} {had}{run.status}"])
