"""``swarm workflow list|info|runs``."""

from __future__ import annotations

import click

from swarm.cli.arguments import WORKFLOW
from swarm.cli.context import asynchronous, reading
from swarm.cli.documents import run_summary, workflow_document
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.orphans import hint_orphans
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.definitions import field_table
from swarm.cli.render.runs import run_table
from swarm.cli.render.tables import Cell, facts, table
from swarm.cli.terminal import clean, stdout
from swarm.definitions.loading import workflow_from_json
from swarm.definitions.workflow import PlacedStep
from swarm.kernel.json import dumps
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


@click.command("info", cls=SwarmCommand)
@click.argument("workflow", type=WORKFLOW)
@pass_globals
@asynchronous
async def info(options: Globals, workflow: str) -> None:
    """Show a workflow's inputs, steps and outputs.

    WORKFLOW is `name` (the highest version registered) or `name@version`.
    """
    async with reading(options) as records:
        record = await records.workflow(workflow)
    definition = record.definition
    if options.json:
        print_json({**workflow_document(record), "definition": definition})
        return
    terminal = stdout()
    print_lines([terminal.style(f"{record.name}@{record.version}", bold=True)])
    if record.description:
        print_lines([clean(record.description)])
    pairs = [
        ("state", "enabled" if record.enabled else "disabled"),
        ("trigger", record.trigger_type),
        ("author", record.author),
        ("tags", ", ".join(record.tags)),
        ("digest", record.digest),
        ("source", record.path),
        ("registered", record.created_at),
    ]
    print_lines(["", *facts(terminal, pairs)])
    print_lines(field_table(terminal, "INPUT", definition.get("inputs", ())))
    workflow_definition = workflow_from_json(definition)
    steps = [
        [placed.step.id, placed.step.target, _remark(placed)]
        for placed in workflow_definition.placed_steps()
    ]
    print_lines(["", *table(terminal, ["STEP", "AGENT", ""], steps)])
    outputs = [
        [name, value if isinstance(value, str) else dumps(value)]
        for name, value in workflow_definition.output_values.items()
    ]
    if outputs:
        print_lines(["", *table(terminal, ["OUTPUT", ""], outputs)])


def _remark(placed: PlacedStep) -> str:
    """What else is to be said of a step, on one line."""
    parts = [placed.step.name]
    if placed.guard is not None:
        parts.append(f"if {placed.guard} has failed")
    if placed.actions is not None:
        parts.append(placed.actions)
    if placed.step.for_each is not None:
        parts.append("for each item")
    return ", ".join(filter(None, parts))


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
