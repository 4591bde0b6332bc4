"""``swarm runs list|show|logs``"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import click
import orjson

from swarm.bootstrap.retention import run_files
from swarm.cli.arguments import RUN, WORKFLOW
from swarm.cli.context import asynchronous, reading
from swarm.cli.documents import run_document, run_summary
from swarm.cli.files import keep_files
from swarm.cli.lazy import load
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.orphans import hint_orphans
from swarm.cli.output import note, print_json, print_json_line, print_lines
from swarm.cli.render.results import show_result
from swarm.cli.render.runs import failure, log_line, run_table, step_table
from swarm.cli.render.tables import facts
from swarm.cli.render.values import STATE_COLORS, duration, elapsed_ms, local_time
from swarm.cli.terminal import stdout
from swarm.engine.logs import log_path
from swarm.kernel.errors import ExitCode
from swarm.kernel.json import JsonObject, dumps
from swarm.store.records import RunFilter, RunState

SESSION = "swarm.cli.session:session"
"""Loaded only to follow: it brings the engine along."""


@click.command("list", cls=SwarmCommand)
@click.option("--workflow", type=WORKFLOW, help="Only runs of this workflow.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([str(state) for state in RunState]),
    help="Only runs in this state; may be given several times.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="At most so many.",
)
@click.option("--before", type=RUN, metavar="RUN", help="Only runs older than this one.")
@pass_globals
@asynchronous
async def list_(
    options: Globals, workflow: str | None, states: tuple[str, ...], limit: int, before: str | None
) -> None:
    """List runs, newest first."""
    async with reading(options) as records:
        before_id = (await records.run(before)).id if before else None
        wanted = RunFilter(
            workflow=workflow,
            states=tuple(RunState(state) for state in states),
            limit=limit + 1,
            before_id=before_id,
        )
        runs = await records.store.list_runs(wanted)
        await hint_orphans(records, options)
    are_more, runs = len(runs) > limit, runs[:limit]
    if options.json:
        print_json({"runs": [run_summary(run) for run in runs]})
    elif not runs:
        note("there are no such runs")
    else:
        print_lines(run_table(stdout(), runs))
        if are_more:
            note(f"older ones: swarm runs list --before {runs[-1].id}")


@click.command("show", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Copy the files that the run gave into this folder.",
)
@pass_globals
@asynchronous
async def show(options: Globals, run_id: str, save: Path | None) -> None:
    """Show a run's steps, outputs and files.

    RUN is an id or the start of one.
    """
    async with reading(options) as records:
        run = await records.run(run_id)
        steps = await records.store.list_steps(run.id)
        is_orphan = any(orphan.id == run.id for orphan in await records.orphans())
        kept = await keep_files(
            run.outputs or {},
            records.artifacts,
            records.home,
            save or run_files(records.home, run.id),
            replace=save is not None,
        )
    if options.json:
        print_json(run_document(run, steps, kept))
        return
    terminal = stdout()
    status = terminal.style(str(run.status), STATE_COLORS.get(run.status), bold=True)
    print_lines([f"{terminal.style(run.id, bold=True)}  {status}", ""])
    pairs = [
        ("workflow", f"{run.workflow_name}@{run.workflow_version}"),
        ("inputs", dumps(run.inputs)),
        ("isolation", run.isolation),
        ("created", local_time(run.created_at)),
        ("took", duration(elapsed_ms(run.started_at, run.completed_at))),
        ("retry of", run.origin_run_id or ""),
        ("error", failure(run)),
    ]
    print_lines([*facts(terminal, pairs), "", *step_table(terminal, steps)])
    if run.outputs:
        print_lines([""])
        show_result(terminal, run.outputs, kept)
    if is_orphan:
        note(f"the process that drove it has ended: swarm runs resume {run.id}")


@click.command("logs", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--step", help="Only this step's lines.")
@pass_globals
@asynchronous
async def logs(options: Globals, run_id: str, follow: bool, step: str | None) -> int:
    """Print what a run's agents logged.

    RUN is an id or the start of one. With --json each line is one JSON object (JSON Lines).
    """
    async with reading(options) as records:
        run = await records.run(run_id)
        names = [record.step_id for record in await records.store.list_steps(run.id)]
        width = max(map(len, names), default=0)
        terminal = stdout()
        written = 0

        def write(entry: JsonObject) -> None:
            nonlocal written
            if step is not None and entry.get("step_id") != step:
                return
            written += 1
            if options.json:
                print_json_line(entry)
            else:
                terminal.line(log_line(terminal, entry, width))

        if step is not None and step not in names:
            raise click.UsageError(f"the run has no step {step}; it has {', '.join(names)}")
    tail = _Tail(log_path(records.home.run_logs, run.id))
    if follow:
        async with aclosing(_changes(options, run.id)) as changes:
            async for _ in changes:
                for entry in tail.read():
                    write(entry)
                terminal.flush()
    for entry in tail.read():
        write(entry)
    if not written and not options.json:
        note("nothing was logged")
    return ExitCode.OK


async def _changes(options: Globals, run_id: str) -> AsyncGenerator[object, None]:
    """Something whenever the run goes on, until it ends.

    The log's file is the source, so that no line comes twice; the events only say when to look.
    """
    async with load(SESSION)(options) as swarm:
        async for event in swarm.runs.follow(run_id):
            yield event


class _Tail:
    """Reads the whole lines that were added to a file since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[JsonObject]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._offset += len(line)
                    try:
                        yield orjson.loads(line)
                    except orjson.JSONDecodeError:
                        continue  # cut short by a crash, then written on
        except FileNotFoundError:
            return
