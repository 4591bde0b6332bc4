"""``swarm runs resume|cancel|prune``: what changes runs."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import click

from swarm.bootstrap.collection import Collected, collect_unused
from swarm.bootstrap.retention import purge_expired
from swarm.cli.arguments import RUN
from swarm.cli.context import asynchronous, reading
from swarm.cli.documents import run_summary
from swarm.cli.driving import follow_runs, tidying
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.values import plural, size
from swarm.cli.session import session
from swarm.cli.viewing import Viewing, viewing_options
from swarm.kernel.errors import ExitCode
from swarm.store.records import RunState


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


@click.command("prune", cls=SwarmCommand)
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Days since the run ended; by default the setting retention_days.",
)
@pass_globals
@asynchronous
async def prune(options: Globals, older_than: float | None) -> None:
    """Delete old runs, with their logs and the copies of their files.

    Then remove packages, environments and artifacts that nothing has referred to for long (the
    setting unused_days). Both also happen by themselves, whenever runs are driven.
    """
    gone: list[str] = []
    async with reading(options) as records:
        days = records.settings.retention_days if older_than is None else older_than
        keeps_all = older_than is None and days == 0
        while not keeps_all and (batch := await purge_expired(records.store, records.home, days)):
            gone += batch
        collected = await collect_unused(records.store, records.home, records.settings)
    unused = collected or Collected()
    if options.json:
        print_json({"runs": gone, "older_than_days": days, "unused": asdict(unused)})
        return
    if keeps_all:
        note("retention_days is 0, which keeps runs for ever; give --older-than DAYS")
    else:
        print_lines([f"deleted {plural(len(gone), 'run')} that ended more than {days:g} days ago"])
    if unused != Collected():
        parts = [
            plural(unused.packages, "package"),
            plural(unused.environments, "environment"),
            f"{plural(unused.artifacts, 'artifact')} ({size(unused.artifact_bytes)})",
        ]
        print_lines([f"removed what nothing refers to: {', '.join(parts)}"])
