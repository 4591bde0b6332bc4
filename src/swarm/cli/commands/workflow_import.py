"""``swarm workflow import``."""

from __future__ import annotations

from pathlib import Path

import click

from swarm.cli.context import read_settings
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.terminal import clean
from swarm.packages.instances import Scale, import_instance

_MOST_MS = 100_000.0
_MOST_BYTES = 1_000_000


@click.command("import", cls=SwarmCommand)
@click.argument("instance", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["wfcommons"]),
    default="wfcommons",
    show_default=True,
    help="What INSTANCE is written in: WfFormat 1.4, 1.5 or 1.6 of the WfCommons project.",
)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="The folder in which the workflow's folder is made.",
)
@click.option("--name", help="What to call the workflow, if not as the instance is called.")
@click.option(
    "--longest-ms",
    type=click.FloatRange(0, _MOST_MS),
    default=50.0,
    show_default=True,
    metavar="MS",
    help="How long the longest task is to compute, about, in milliseconds; others in proportion.",
)
@click.option(
    "--largest-bytes",
    type=click.IntRange(0, _MOST_BYTES),
    default=4096,
    show_default=True,
    metavar="BYTES",
    help="How much the task that wrote most is to give; others in proportion. It is less where a"
    " step would receive more than SWARM_MAX_INPUT_BYTES.",
)
@pass_globals
def import_(
    options: Globals,
    instance: Path,
    format_: str,
    into: Path,
    name: str | None,
    longest_ms: float,
    largest_bytes: int,
) -> None:
    """Make a workflow from an instance of a scientific workflow, its work scaled down.

    INSTANCE is a JSON file: what an execution of a workflow was measured to be, as the WfCommons
    project collects and generates them. Each task becomes a step that calls the agent `stand-in`.
    A step is named as its task; its id is the same name with the characters of an identifier.
    """
    scale = Scale(longest_ms, largest_bytes)
    made = import_instance(instance, into, scale, read_settings(options), name)
    if options.json:
        print_json(
            {
                "name": made.name,
                "path": str(made.folder.absolute()),
                "format": format_,
                "steps": made.steps,
                "dependencies": made.dependencies,
                "work_seconds": round(made.work_seconds, 3),
                "data_bytes": made.data_bytes,
            }
        )
        return
    print_lines(
        [
            f"made {clean(str(made.folder))}: {made.steps} steps, {made.dependencies} dependencies,"
            f" about {made.work_seconds:.1f} s of work"
        ]
    )
    note(f"next: swarm workflow register {made.folder}")
