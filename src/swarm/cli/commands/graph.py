"""``swarm workflow graph``"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from swarm.cli.arguments import WORKFLOW
from swarm.cli.context import asynchronous, read_settings, reading
from swarm.cli.graphs import workflow_actions, workflow_nodes
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines
from swarm.cli.render.graph import (
    actions_as_text,
    as_document,
    as_dot,
    as_mermaid,
    as_text,
    levels,
)
from swarm.cli.render.values import plural
from swarm.cli.terminal import clean, stdout
from swarm.definitions.loading import load_workflow, workflow_from_json
from swarm.definitions.workflow import WorkflowDefinition
from swarm.expressions.checking import check_workflow
from swarm.kernel.errors import DefinitionError
from swarm.kernel.settings import MIB

WORKFLOW_FILE = "workflow.yaml"


@click.command("graph", cls=SwarmCommand)
@click.argument("workflow", type=WORKFLOW, metavar="WORKFLOW|PATH")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "dot", "mermaid", "json"]),
    default="text",
    show_default=True,
    help="`dot` is Graphviz.",
)
@pass_globals
@asynchronous
async def graph(options: Globals, workflow: str, format_: str) -> None:
    """Draw a workflow's steps and what they wait for, level by level.

    WORKFLOW is a registered one, or PATH of a workflow.yaml or the folder that holds one. The
    steps of one level run in parallel once what they wait for has ended. What is done at the end
    of a run (`on_error`, `on_success`, `on_cancel`) is listed below them.
    """
    definition = await _definition(options, workflow)
    nodes, actions = workflow_nodes(definition), workflow_actions(definition)
    terminal = stdout()
    if options.json or format_ == "json":
        print_json(as_document(definition.name, definition.version, nodes, actions))
    elif format_ == "dot":
        print_lines(as_dot(definition.name, nodes, actions))
    elif format_ == "mermaid":
        print_lines(as_mermaid(nodes, actions))
    else:
        name = terminal.style(f"{definition.name}@{definition.version}", bold=True)
        counts = f"{plural(len(nodes), 'step')}, {plural(len(levels(nodes)), 'level')}"
        print_lines([f"{name}  {counts}"])
        if definition.description:
            print_lines([clean(definition.description)])
        print_lines(["", *as_text(nodes, terminal), *actions_as_text(actions, terminal)])


async def _definition(options: Globals, workflow: str) -> WorkflowDefinition:
    """The workflow at a path (anything with a slash or ending in .yaml), else a registered one."""
    path = Path(workflow)
    is_path = "/" in workflow or path.suffix in (".yaml", ".yml") or workflow in (".", "..")
    if not is_path:
        async with reading(options) as records:
            return workflow_from_json((await records.workflow(workflow)).definition)
    file = path / WORKFLOW_FILE if path.is_dir() else path
    most = read_settings(options).max_workflow_mb * MIB
    definition = await asyncio.to_thread(load_workflow, file, most)
    if problems := check_workflow(definition, None, str(file), None):
        raise DefinitionError(problems)
    return definition
