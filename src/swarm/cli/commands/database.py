"""``swarm db backup|check|migrate|status``"""

from __future__ import annotations

from pathlib import Path

import click

from swarm.bootstrap.database import DatabaseStatus, database_status, migrate_database
from swarm.cli.context import asynchronous, read_settings, reading
from swarm.cli.copying import telling
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines
from swarm.cli.render.values import size
from swarm.cli.terminal import clean
from swarm.kernel.errors import ExitCode
from swarm.kernel.home import Home


@click.command("backup", cls=SwarmCommand)
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--replace", is_flag=True, help="Overwrite the file if it is there.")
@pass_globals
@asynchronous
async def backup(options: Globals, target: Path, replace: bool) -> None:
    """Copy the database while it is in use.

    FILE holds what was recorded when the command began; it is checked, and is there whole or not
    at all. Of PostgreSQL it is an archive for pg_restore, made by pg_dump. Artifacts, packages and
    the master key are files below the home: copy them too.
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
        place = (await database_status(records.home, records.settings)).place
    if options.json:
        print_json({"database": str(place), "sound": not faults, "faults": faults})
    elif faults:
        print_lines([clean(fault) for fault in faults])
        print_lines([f"{place} is damaged: put back a backup, made by `swarm db backup`"])
    else:
        print_lines([f"{place} is sound"])
    return ExitCode.ENVIRONMENT if faults else ExitCode.OK


@click.command("status", cls=SwarmCommand)
@pass_globals
@asynchronous
async def status(options: Globals) -> None:
    """Show which database this home has, and its schema's version.

    Nothing is changed, and no database is made.
    """
    settings = read_settings(options)
    _print_status(options, await database_status(Home(settings.home), settings))


@click.command("migrate", cls=SwarmCommand)
@pass_globals
@asynchronous
async def migrate(options: Globals) -> None:
    """Make the database's tables, or bring them up to date.

    An SQLite database is also made and upgraded by whatever opens it first, and a copy of it is
    kept. PostgreSQL is upgraded by this command alone; make a backup first. Workers of the older
    Swarm go on meanwhile where the upgrade allows it; else it is refused while they are at work.
    """
    settings = read_settings(options)
    home = Home(settings.home)
    home.create()
    async with telling("migrating"):
        found = await migrate_database(home, settings)
    _print_status(options, found)


def _print_status(options: Globals, found: DatabaseStatus) -> None:
    schema = found.schema
    if options.json:
        applied = [
            {"version": one.version, "name": one.name, "applied_at": one.applied_at}
            for one in schema.applied
        ]
        print_json(
            {
                "kind": found.kind,
                "database": found.place,
                "version": schema.version,
                "known": schema.known,
                "oldest": schema.oldest,
                "applied": applied,
            }
        )
        return
    states = {
        "new": "has no tables yet; `swarm db migrate` makes them",
        "older": f"is older than this Swarm (version {schema.known}): run `swarm db migrate`",
        "current": "is up to date",
        "newer": f"is newer than this Swarm (version {schema.known}), which may go on using it",
        "too new": f"needs a Swarm that knows version {schema.oldest}: this one knows "
        f"{schema.known}, and cannot use it",
    }
    print_lines([f"{clean(found.place)}: version {schema.version}, {states[schema.fitness]}"])
