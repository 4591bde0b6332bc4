"""``swarm db copy|fetch|publish``"""

from __future__ import annotations

from dataclasses import asdict

import click

from swarm.bootstrap.database import Kind, copy_database
from swarm.bootstrap.sharing import Moved, bring_home, move_files, publish_home
from swarm.cli.context import asynchronous, read_settings
from swarm.cli.copying import telling
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines
from swarm.cli.render.tables import table
from swarm.cli.render.values import plural
from swarm.cli.session import session
from swarm.cli.terminal import clean, stdout
from swarm.kernel.errors import ExitCode
from swarm.kernel.home import Home


@click.command("copy", cls=SwarmCommand)
@click.option(
    "--to",
    "target",
    type=click.Choice(("postgresql", "sqlite")),
    required=True,
    help="Where the records go; they come from the other.",
)
@click.option(
    "--records-only",
    is_flag=True,
    help="Leave the files: `swarm db publish` or `swarm db fetch` moves them.",
)
@pass_globals
@asynchronous
async def copy(options: Globals, target: Kind, records_only: bool) -> int:
    """Copy a home between its SQLite file and PostgreSQL: its records, and the files they name.

    PostgreSQL is the one that SWARM_DATABASE_URL names. The target must hold no records; stop
    every worker and server first. Of each table, rows are counted and digests compared before the
    copy is committed. Then packages and artifacts are published for all machines of that database,
    or brought into this home. The source is not changed. The master key of stored secrets is a file
    of the home: copy it yourself.
    """
    settings = read_settings(options)
    home = Home(settings.home)
    home.create()
    progress = CountedRows()
    async with telling("copying", progress):
        place, tables = await copy_database(home, settings, target, progress.set)
    moved: Moved | None = None
    if not records_only:
        async with telling("copying files"):
            moved = await move_files(settings, target)
    if options.json:
        rows = [{"table": one.table, "rows": one.rows, "digest": one.digest} for one in tables]
        files = asdict(moved) if moved is not None else None
        print_json({"target": place, "tables": rows, "files": files})
    else:
        lines = [[one.table, f"{one.rows:,}", one.digest] for one in tables]
        print_lines(table(stdout(), ["TABLE", "ROWS", "DIGEST"], lines))
        print_lines([f"all of it is in {clean(place)}, as it was"])
        if moved is not None:
            _print_moved(moved, "published" if target == "postgresql" else "here")
    return ExitCode.FAILED if moved is not None and moved.missing else ExitCode.OK


class CountedRows:
    """How far a copy has come, as text."""

    def __init__(self) -> None:
        self._text = ""

    def set(self, table_name: str, done: int, total: int) -> None:
        self._text = f"{table_name}: {done:,} of {total:,} rows"

    def __str__(self) -> str:
        return self._text


@click.command("publish", cls=SwarmCommand)
@pass_globals
@asynchronous
async def publish(options: Globals) -> int:
    """Have other machines find the files of this home.

    For a home whose records alone were copied to PostgreSQL: every package and artifact of it that
    they refer to is published. What is registered and put from then on is published by itself.
    """
    async with session(options, "run") as swarm, telling("publishing"):
        moved = await publish_home(swarm)
    return _report_moved(options, moved, "published")


@click.command("fetch", cls=SwarmCommand)
@pass_globals
@asynchronous
async def fetch(options: Globals) -> int:
    """Bring all files that other machines have published into this home.

    For a home whose records alone are to be copied back to SQLite, or one that is to work apart.
    Give SWARM_ARTIFACT_CACHE_MB room for all of them.
    """
    async with session(options, "run") as swarm, telling("fetching"):
        moved = await bring_home(swarm)
    return _report_moved(options, moved, "here")


def _report_moved(options: Globals, moved: Moved, deed: str) -> int:
    if options.json:
        print_json(asdict(moved))
    else:
        _print_moved(moved, deed)
    return ExitCode.FAILED if moved.missing else ExitCode.OK


def _print_moved(moved: Moved, deed: str) -> None:
    packages, artifacts = plural(moved.packages, "package"), plural(moved.artifacts, "artifact")
    print_lines([f"{packages} and {artifacts} {deed}"])
    print_lines([clean(f"missing: {line}") for line in moved.missing])
