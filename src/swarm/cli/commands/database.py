"""``swarm db backup|check``"""

from __future__ import annotations

from pathlib import Path

import click

from swarm.cli.context import asynchronous, reading
from swarm.cli.copying import telling
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines
from swarm.cli.render.values import size
from swarm.cli.terminal import clean
from swarm.kernel.errors import ExitCode


@click.command("backup", cls=SwarmCommand)
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--replace", is_flag=True, help="Overwrite the file if it is there.")
@pass_globals
@asynchronous
async def backup(options: Globals, target: Path, replace: bool) -> None:
    """Copy the database while it is in use.

    FILE holds what was recorded when the command began; it is checked, and is there whole or not
    at all. Artifacts, packages and the master key are files below the home: copy them too.
    """
    target = target.absolute()
    async with reading(options) as records, telling("copying"):
        count = await records.store.back_up(target, replace=replace)
    if options.json:
        print_json({"file": str(target), "size": count})
    else:
        print_lines([f"{clean(str(target))}  {size(count)}"])


@click.command("check", cls=SwarmCommand)
@pass_globals
@asynchronous
async def check(options: Globals) -> int:
    """Check that the database is sound.

    All of it is read: its pages, indexes and what rows say of each other.
    """
    async with reading(options) as records:
        async with telling("checking"):
            faults = await records.store.check()
        place = records.home.database
    if options.json:
        print_json({"database": str(place), "sound": not faults, "faults": faults})
    elif faults:
        print_lines([clean(fault) for fault in faults])
        print_lines([f"{place} is damaged: put back a backup, made by `swarm db backup`"])
    else:
        print_lines([f"{place} is sound"])
    return ExitCode.ENVIRONMENT if faults else ExitCode.OK
