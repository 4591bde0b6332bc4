"""``swarm runs timeline``"""

from __future__ import annotations

from pathlib import Path

import click

from swarm.cli.arguments import RUN
from swarm.cli.context import asynchronous, reading
from swarm.cli.documents import item_number
from swarm.cli.graphs import run_nodes
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.timeline import timeline_lines
from swarm.cli.render.timeline_svg import timeline_svg
from swarm.cli.terminal import stdout
from swarm.engine.timeline import SHOWN_ITEMS, Timeline, lay_out
from swarm.kernel.clock import now_text
from swarm.kernel.errors import UnavailableError
from swarm.kernel.json import JsonObject
from swarm.store.records import RunRecord

SVG_WIDTH = 1_000
"""Pixels."""


@click.command("timeline", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@click.option(
    "--svg", metavar="FILE", help="Write the chart as SVG into this file, or - for standard output."
)
@click.option(
    "--width",
    type=click.IntRange(40, 10_000),
    metavar="N",
    help="Columns of the chart, or pixels of the SVG; by default those of the terminal, or 1000.",
)
@click.option(
    "--items",
    type=click.IntRange(0, 10_000),
    default=SHOWN_ITEMS,
    show_default=True,
    metavar="N",
    help="Items of each step that have lines of their own: those that failed or took longest.",
)
@pass_globals
@asynchronous
async def timeline(
    options: Globals, run_id: str, svg: str | None, width: int | None, items: int
) -> None:
    """Draw when each step of a run ran and waited, as a Gantt chart.

    RUN is an id or the start of one. The steps of the critical path are marked: those that the run
    would have been shorter without. A run that goes on is drawn up to now.
    """
    if svg is not None and options.json:
        raise click.UsageError("--svg and --json exclude each other")
    async with reading(options) as records:
        run = await records.run(run_id)
        nodes = await run_nodes(records.store, run)
        chart = lay_out(
            run,
            await records.store.list_steps(run.id),
            await records.store.list_invocations(run.id),
            {node.id: node.needs for node in nodes.values()},
            now_text(),
            items,
        )
    if options.json:
        print_json(timeline_document(run, chart))
    elif svg is not None:
        _write(svg, timeline_svg(chart, run, width or SVG_WIDTH))
    else:
        terminal = stdout()
        print_lines(timeline_lines(chart, terminal, width or terminal.width))


def _write(target: str, text: str) -> None:
    if target == "-":
        print_lines([text.rstrip("\n")])
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnavailableError(
            f"it cannot be written: {error.strerror or error}",
            where=target,
            remedy="give a file in a folder that you may write to",
        ) from None
    note(f"wrote {target}")


def timeline_document(run: RunRecord, chart: Timeline) -> JsonObject:
    """The chart for machines: all times in seconds from ``begins``."""
    return {
        "run_id": run.id,
        "status": str(run.status),
        "begins": chart.begins,
        "seconds": chart.seconds,
        "rows": [
            {
                "step": row.step_id,
                "item": item_number(row.item_index),
                "state": row.state or None,
                "critical": row.is_critical,
                "folded_items": row.folded,
                "spans": [
                    {"kind": span.kind, "start": span.start, "end": span.end, "about": span.about}
                    for span in row.spans
                ],
            }
            for row in chart.rows
        ],
    }
