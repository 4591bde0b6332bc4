"""``swarm runs export|import``"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import click

from swarm.cli.arguments import RUN
from swarm.cli.context import asynchronous, reading
from swarm.cli.copying import CountedFile, telling
from swarm.cli.filters import Wanted, filter_options
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.values import plural, size
from swarm.kernel.errors import InvalidError, NotFoundError, UnavailableError
from swarm.store.records import RunFilter
from swarm.store.transfer import Exported, export_runs, import_runs

STREAM = "-"


@click.command("export", cls=SwarmCommand)
@click.argument("run_ids", nargs=-1, type=RUN, metavar="[RUN]...")
@filter_options(called=False)
@click.option(
    "-o",
    "--output",
    default=STREAM,
    metavar="FILE",
    help="Where to write; - (the default) is standard output.",
)
@pass_globals
@asynchronous
async def export(options: Globals, run_ids: tuple[str, ...], wanted: Wanted, output: str) -> None:
    """Write runs as JSON Lines.

    RUN is an id or the start of one; without it, every run that has ended and that the options
    leave. Runs go with their steps, attempts, answers, and the runs that they called; not with
    their logs, artifacts and secrets. A file is readable by its owner only, and there whole or not
    at all.
    """
    if options.json and output == STREAM:
        raise click.UsageError("--json needs -o FILE: standard output has the runs")
    if run_ids and not wanted.is_any:
        raise click.UsageError("name runs, or say which by options, not both")
    async with reading(options) as records:
        ids: list[str] | None = None
        if run_ids:
            runs = [await records.run(run_id) for run_id in run_ids]
            for run in runs:
                if not run.status.is_final:
                    raise InvalidError(
                        f"run {run.id} has not ended: it is {run.status}",
                        remedy="export it when it has",
                    )
            ids = [run.id for run in runs]
        run_filter = await wanted.run_filter(records, RunFilter().limit)
        with _target(output) as file:
            counted = CountedFile(file)
            async with telling("exporting", counted):
                done = await export_runs(records.store, run_filter, cast("BinaryIO", counted), ids)
    _tell_exported(options, done, output, counted.count)


def _tell_exported(options: Globals, done: Exported, output: str, count: int) -> None:
    if options.json:
        document = {"runs": done.runs, "left_out": done.left_out, "size": count}
        print_json({"file": str(Path(output).absolute()), **document})
    else:
        note(f"exported {plural(done.runs, 'run')}, {size(count)}")
    if done.left_out:
        note(f"left out {plural(done.left_out, 'run')} that changed meanwhile: export again")


@contextmanager
def _target(output: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes its place once it is whole."""
    if output == STREAM:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output).absolute()
    try:
        descriptor, name = tempfile.mkstemp(prefix=".swarm-", dir=path.parent)
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UnavailableError(
            f"it cannot be written: {error.strerror or error}",
            where=output,
            remedy="free space, or give a file in a folder that you may write to",
        ) from None


@click.command("import", cls=SwarmCommand)
@click.argument("source", metavar="FILE")
@pass_globals
@asynchronous
async def import_(options: Globals, source: str) -> None:
    """Record the runs of an export.

    FILE is what `swarm runs export` wrote; - is standard input. Runs that are there already are
    left alone, so that the same file can be imported again. Imported runs can be looked at, retried
    and forked where their workflow is registered, but not resumed.
    """
    async with reading(options) as records:
        with _source(source) as (file, total):
            counted = CountedFile(file, total)
            async with telling("importing", counted):
                done = await import_runs(records.store, cast("BinaryIO", counted))
    if options.json:
        print_json({"runs": done.runs, "existing": done.existing, "left_out": done.left_out})
        return
    print_lines([f"imported {plural(done.runs, 'run')}"])
    if done.existing:
        note(f"{plural(done.existing, 'run')} were there already")
    if done.left_out:
        note(f"the export leaves out {plural(done.left_out, 'run')} that changed meanwhile")


@contextmanager
def _source(source: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Standard input, or a file and its size."""
    if source == STREAM:
        yield sys.stdin.buffer, None
        return
    try:
        with Path(source).open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise NotFoundError(
            "there is no such file", where=source, remedy="give a file of `swarm runs export`"
        ) from None
    except OSError as error:
        raise UnavailableError(
            f"it cannot be read: {error.strerror or error}",
            where=source,
            remedy="give a file that you may read",
        ) from None
