"""``swarm runs list|children``"""

from __future__ import annotations

import click
from msgspec.structs import replace

from swarm.bootstrap.records import Records
from swarm.cli.arguments import RUN
from swarm.cli.context import asynchronous, reading
from swarm.cli.documents import run_summary
from swarm.cli.filters import Wanted, filter_options
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.orphans import hint_orphans
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.runs import child_table, run_table
from swarm.cli.terminal import stdout
from swarm.store.records import RunFilter, RunRecord

LIMIT = click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="At most so many.",
)


@click.command("list", cls=SwarmCommand)
@filter_options()
@LIMIT
@click.option("--before", type=RUN, metavar="RUN", help="Only runs older than this one.")
@pass_globals
@asynchronous
async def list_(options: Globals, wanted: Wanted, limit: int, before: str | None) -> None:
    """List runs, newest first.

    Runs that other runs called are left out, unless they are asked for. Several conditions must all
    hold; of several states, one.
    """
    async with reading(options) as records:
        before_id = (await records.run(before)).id if before else None
        run_filter = await wanted.run_filter(records, limit + 1)
        runs = await records.store.list_runs(
            replace(run_filter, before_id=before_id, documents=False)
        )
        await hint_orphans(records, options)
    are_more, runs = len(runs) > limit, runs[:limit]
    if options.json:
        print_json({"runs": [run_summary(run) for run in runs]})
    elif not runs:
        note("there are no such runs")
        if wanted.inputs:
            note("runs are found by the inputs that their workflow lists under `search`")
    else:
        print_lines(run_table(stdout(), runs))
        if are_more:
            note(f"older ones: swarm runs list --before {runs[-1].id}")


@click.command("children", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=200,
    show_default=True,
    help="At most so many.",
)
@pass_globals
@asynchronous
async def children(options: Globals, run_id: str, limit: int) -> None:
    """List the runs that a run called, and those that they called, in the order of the calls.

    RUN is an id or the start of one.
    """
    async with reading(options) as records:
        run = await records.run(run_id)
        found = await _called(records, run, limit + 1)
    are_more, found = len(found) > limit, found[:limit]
    if options.json:
        print_json({"runs": [run_summary(child) for child in found]})
    elif not found:
        note(f"run {run.id} called no other run")
    else:
        print_lines(child_table(stdout(), run, found))
        if are_more:
            note("there are more; raise --limit to see them")


async def _called(records: Records, run: RunRecord, limit: int) -> list[RunRecord]:
    """The runs below ``run``, each followed by those below it, at most ``limit`` of them."""
    wanted = RunFilter(parent_run_id=run.id, limit=limit, documents=False)
    found: list[RunRecord] = []
    for child in reversed(await records.store.list_runs(wanted)):
        if len(found) >= limit:
            break
        found.append(child)
        found += await _called(records, child, limit - len(found))
    return found[:limit]
