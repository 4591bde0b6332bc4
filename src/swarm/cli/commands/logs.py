"""``swarm runs logs``"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import click
import orjson

from swarm.cli.arguments import RUN
from swarm.cli.context import asynchronous, reading
from swarm.cli.lazy import load
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json_line
from swarm.cli.render.runs import log_line
from swarm.cli.terminal import stdout
from swarm.engine.logs import log_path
from swarm.kernel.errors import ExitCode
from swarm.kernel.json import JsonObject

SESSION = "swarm.cli.session:session"
"""Loaded only to follow: it brings the engine along."""


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
