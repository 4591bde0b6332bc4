"""``swarm workflow info``."""

from __future__ import annotations

import click

from swarm.cli.arguments import WORKFLOW
from swarm.cli.context import asynchronous, reading
from swarm.cli.documents import workflow_document
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines
from swarm.cli.render.definitions import field_table
from swarm.cli.render.tables import facts, table
from swarm.cli.terminal import clean, stdout
from swarm.definitions.loading import workflow_from_json
from swarm.definitions.workflow import PlacedStep
from swarm.kernel.json import dumps


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
