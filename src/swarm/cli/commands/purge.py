"""``swarm runs purge``"""

from __future__ import annotations

from dataclasses import asdict

import click

from swarm.bootstrap.collection import Collected, collect_unused
from swarm.bootstrap.records import Records
from swarm.bootstrap.retention import SECONDS_PER_DAY, delete_runs, ended_runs, purge_expired
from swarm.cli.context import asynchronous, reading
from swarm.cli.moments import DURATION
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.values import duration, plural, size
from swarm.kernel.clock import ago_text
from swarm.store.records import RunState

NAMED = 20
"""Runs that a dry run names; the others are counted."""


@click.command("purge", cls=SwarmCommand)
@click.option(
    "--older-than",
    type=DURATION,
    metavar="DURATION",
    help="How long ago the runs ended, such as 90m or 30d; by default the setting retention_days.",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([str(state) for state in RunState if state.is_final]),
    help="Only runs in this state; may be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Delete nothing; say which runs would go.")
@pass_globals
@asynchronous
async def purge(
    options: Globals, older_than: float | None, states: tuple[str, ...], dry_run: bool
) -> None:
    """Delete old runs, and what nothing refers to.

    Runs go with their logs and the copies of their files. Packages, environments and artifacts go
    that nothing has referred to for long (the setting unused_days). Both also happen by themselves,
    whenever runs are driven.
    """
    async with reading(options) as records:
        seconds = older_than
        if seconds is None:
            seconds = records.settings.retention_days * SECONDS_PER_DAY
        keeps_all = older_than is None and seconds == 0
        if keeps_all:
            note("retention_days is 0, which keeps runs for ever; give --older-than DURATION")
        wanted = [RunState(state) for state in states]
        gone = [] if keeps_all else await _gone(records, seconds, wanted, dry_run)
        collected = None
        if not dry_run:
            collected = await collect_unused(
                records.store, records.home, records.settings, records.shared
            )
    unused = collected or Collected()
    if options.json:
        document = {"older_than_seconds": seconds, "dry_run": dry_run, "unused": asdict(unused)}
        print_json({"runs": gone, **document})
        return
    if dry_run:
        print_lines(gone[:NAMED])
        more = f" (the {NAMED} newest are named)" if len(gone) > NAMED else ""
        note(f"{plural(len(gone), 'run')} would be deleted{more}")
    elif not keeps_all:
        ago = duration(seconds * 1000)
        print_lines([f"deleted {plural(len(gone), 'run')} that ended more than {ago} ago"])
    _tell_unused(unused)


async def _gone(
    records: Records, seconds: float, states: list[RunState], dry_run: bool
) -> list[str]:
    """The ids of the runs that are gone, or would be."""
    store, home = records.store, records.home
    gone: list[str] = []
    if dry_run or states:
        # Batches are read by id, so that what is deleted meanwhile does not matter.
        async for batch in ended_runs(store, ago_text(seconds), states):
            ids = [run.id for run in batch]
            gone += ids if dry_run else await delete_runs(store, home, ids)
        return gone
    days = seconds / SECONDS_PER_DAY
    while batch_ids := await purge_expired(store, home, days):
        gone += batch_ids
    return gone


def _tell_unused(unused: Collected) -> None:
    if unused != Collected():
        parts = [
            plural(unused.packages, "package"),
            plural(unused.environments, "environment"),
            f"{plural(unused.artifacts, 'artifact')} ({size(unused.artifact_bytes)})",
        ]
        print_lines([f"removed what nothing refers to: {', '.join(parts)}"])
