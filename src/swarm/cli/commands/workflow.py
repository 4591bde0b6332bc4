"""``swarm workflow list|runs``."""

from __future__ import annotations

import click

from swarm.cli.arguments import WORKFLOW
from swarm.cli.context import asynchronous, reading
from swarm.cli.documents import run_summary, workflow_document
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.orphans import hint_orphans
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.runs import run_table
from swarm.cli.render.tables import Cell, table
from swarm.cli.terminal import stdout
from swarm.packages.references import split_reference
from swarm.store.records import RunFilter


@click.command("list", cls=SwarmCommand)
@pass_globals
@asynchronous
async def list_(options: Globals) -> None:
    """List the registered workflows."""
    async with reading(options) as records:
        workflows = await records.store.list_workflows()
    if options.json:
        print_json({"workflows": [workflow_document(workflow) for workflow in workflows]})
        return
    if not workflows:
        note("no workflow is registered yet: swarm workflow register --all")
        return
    rows = [
        [
            workflow.name,
            workflow.version,
            str(len(workflow.definition.get("steps", ()))),
            "enabled" if workflow.enabled else Cell("disabled", "yellow"),
            workflow.description,
        ]
        for workflow in workflows
    ]
    print_lines(table(stdout(), ["NAME", "VERSION", "STEPS", "STATE", "DESCRIPTION"], rows))


@click.command("runs", cls=SwarmCommand)
@click.argument("workflow", type=WORKFLOW)
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="At most so many.",
)
@pass_globals
@asynchronous
async def runs(options: Globals, workflow: str, limit: int) -> None:
    """Show a workflow's run history, newest first."""
    async with reading(options) as records:
        record = await records.workflow(split_reference(workflow)[0])
        found = await records.store.list_runs(RunFilter(workflow=record.name, limit=limit))
        await hint_orphans(records, options)
    if options.json:
        print_json({"runs": [run_summary(run) for run in found]})
    elif not found:
        note(f"{record.name} has not been run yet: swarm run {record.name}")
    else:
        print_lines(run_table(stdout(), found))
