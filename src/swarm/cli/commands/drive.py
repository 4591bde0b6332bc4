"""``swarm runs resume|retry``: what drives runs again."""

from __future__ import annotations

import click

from swarm.cli.arguments import RUN
from swarm.cli.commands.run import start_detached
from swarm.cli.context import asynchronous, session
from swarm.cli.driving import follow_runs, tidying
from swarm.cli.isolation import warn_unisolated
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json
from swarm.cli.viewing import Viewing, viewing_options
from swarm.kernel.errors import ExitCode
from swarm.sandbox.ports import Isolation


@click.command("resume", cls=SwarmCommand)
@click.argument("run_ids", nargs=-1, type=RUN, metavar="[RUN]...")
@viewing_options(detach=False)
@pass_globals
@asynchronous
async def resume(options: Globals, run_ids: tuple[str, ...], viewing: Viewing) -> int:
    """Carry on interrupted, failed or cancelled runs; finished steps are not run again.

    Without RUN, every run whose process has ended is carried on. RUN is an id or the start of one.
    """
    async with session(options, "run") as swarm, tidying(swarm):
        runs = await swarm.runs.resume(run_ids)
        if not runs:
            if options.json:
                print_json({"runs": []})
            else:
                note("no run was interrupted")
            return ExitCode.OK
        return await follow_runs(swarm, runs, viewing)


@click.command("retry", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@viewing_options
@pass_globals
@asynchronous
async def retry(options: Globals, run_id: str, detach: bool, viewing: Viewing) -> int:
    """Start a new run with the workflow and inputs of another.

    RUN is an id or the start of one. Unlike `resume`, every step is run again.
    """
    async with session(options, "run") as swarm, tidying(swarm):
        created = await swarm.runs.retry(run_id)
        warn_unisolated(Isolation(created.isolation))
        if detach:
            await start_detached(swarm, created, options)
            return ExitCode.OK
        await swarm.runs.start(created.id)
        return await follow_runs(swarm, [created], viewing)
