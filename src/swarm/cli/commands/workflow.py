"""``swarm workflow new|list|info|register|enable|disable|runs|validate``."""

from __future__ import annotations

from pathlib import Path

import click

from swarm.cli.arguments import WORKFLOW, check_all
from swarm.cli.context import asynchronous, session
from swarm.cli.documents import run_summary, workflow_document
from swarm.cli.driving import hint_orphans
from swarm.cli.errors import show_error
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.definitions import field_table
from swarm.cli.render.runs import run_table
from swarm.cli.render.tables import Cell, facts, table
from swarm.cli.terminal import clean, stderr, stdout
from swarm.kernel.errors import DefinitionError, ExitCode, SwarmError
from swarm.kernel.json import JsonObject, dumps
from swarm.packages.builtin import catalog_root
from swarm.packages.references import split_reference
from swarm.packages.registration import FailedRegistration
from swarm.packages.scaffold import create_workflow, list_templates
from swarm.packages.workflows import RegisteredWorkflow
from swarm.store.records import RunFilter


@click.command("new", cls=SwarmCommand)
@click.argument("name", required=False)
@click.option(
    "--template", default="linear-workflow", show_default=True, help="What to start from."
)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="The folder in which the new one is made.",
)
@click.option("--list", "list_templates_", is_flag=True, help="List the templates.")
@pass_globals
def new(
    options: Globals, name: str | None, template: str, into: Path, list_templates_: bool
) -> None:
    """Make a new workflow from a template, in the folder NAME."""
    if list_templates_:
        templates = list_templates("workflow")
        if options.json:
            print_json(
                {"templates": [{"name": t.name, "description": t.description} for t in templates]}
            )
        else:
            rows = [[one.name, one.description] for one in templates]
            print_lines(table(stdout(), ["TEMPLATE", "DESCRIPTION"], rows))
        return
    if name is None:
        raise click.UsageError("give the NAME of the new workflow")
    folder = create_workflow(name, template, into)
    if options.json:
        print_json({"name": name, "template": template, "path": str(folder.absolute())})
    else:
        print_lines([f"made {folder}"])
        note(f"next: swarm workflow register {folder}")


@click.command("list", cls=SwarmCommand)
@pass_globals
@asynchronous
async def list_(options: Globals) -> None:
    """List the registered workflows."""
    async with session(options) as swarm:
        workflows = await swarm.workflows.list()
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
    async with session(options) as swarm:
        record = await swarm.workflows.resolve(workflow)
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
    steps = [[one["id"], one["agent"], one.get("name", "")] for one in definition["steps"]]
    print_lines(["", *table(terminal, ["STEP", "AGENT", ""], steps)])
    outputs = [
        [name, value if isinstance(value, str) else dumps(value)]
        for name, value in definition.get("outputs", {}).items()
    ]
    if outputs:
        print_lines(["", *table(terminal, ["OUTPUT", ""], outputs)])


@click.command("register", cls=SwarmCommand)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="PATH...")
@click.option(
    "--all",
    "all_",
    is_flag=True,
    help="Register every workflow in the folder PATH; without one, the built-in workflows and"
    " those in the home's workflows/ folder.",
)
@pass_globals
@asynchronous
async def register(options: Globals, paths: tuple[Path, ...], all_: bool) -> int:
    """Register workflows.

    PATH is a workflow.yaml or the folder that holds one; with --all, a folder of such folders.
    The agents that the steps call must be registered first.
    """
    check_all(paths, all_)
    results: list[RegisteredWorkflow | FailedRegistration] = []
    async with session(options) as swarm:
        if all_:
            for folder in paths or (catalog_root() / "workflows", swarm.home.workflows):
                results += await swarm.workflows.register_all(folder)
        else:
            for path in paths:
                try:
                    results.append(await swarm.workflows.register(path))
                except SwarmError as error:
                    if len(paths) == 1:
                        raise
                    results.append(FailedRegistration(path, error))
    return _tell(results, options)


def _tell(results: list[RegisteredWorkflow | FailedRegistration], options: Globals) -> int:
    code: int = ExitCode.OK
    documents: list[JsonObject] = []
    for result in results:
        if isinstance(result, FailedRegistration):
            show_error(result.error, stderr())
            code = code or result.error.exit_code
            documents.append({"path": str(result.path), "error": result.error.as_json()})
            continue
        record = result.record
        documents.append(
            {
                **workflow_document(record),
                "created": result.created,
                "replaced_digest": result.replaced_digest,
            }
        )
        if not options.json:
            terminal = stdout()
            verb = "registered" if result.created else "already registered"
            replaced = ", replacing other content of this version" if result.replaced_digest else ""
            name = terminal.style(f"{record.name}@{record.version}", bold=True)
            print_lines([f"{verb} {name}{replaced}"])
    if options.json:
        print_json({"workflows": documents})
    elif not results:
        note("no workflow was found")
    return code


@click.command("enable", cls=SwarmCommand)
@click.argument("workflow", type=WORKFLOW)
@pass_globals
def enable(options: Globals, workflow: str) -> None:
    """Let a workflow be run again."""
    _set_enabled(options, workflow, True)


@click.command("disable", cls=SwarmCommand)
@click.argument("workflow", type=WORKFLOW)
@pass_globals
def disable(options: Globals, workflow: str) -> None:
    """Keep a workflow from being run; runs on their way go on."""
    _set_enabled(options, workflow, False)


@asynchronous
async def _set_enabled(options: Globals, workflow: str, enabled: bool) -> None:
    async with session(options) as swarm:
        count = await swarm.workflows.set_enabled(workflow, enabled)
    name = split_reference(workflow)[0]
    if options.json:
        print_json({"workflow": name, "enabled": enabled, "versions": count})
    else:
        print_lines([f"{clean(name)} is {'enabled' if enabled else 'disabled'}"])


@click.command("runs", cls=SwarmCommand)
@click.argument("workflow", type=WORKFLOW)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@pass_globals
@asynchronous
async def runs(options: Globals, workflow: str, limit: int) -> None:
    """Show a workflow's run history, newest first."""
    async with session(options) as swarm:
        record = await swarm.workflows.resolve(split_reference(workflow)[0])
        found = await swarm.store.list_runs(RunFilter(workflow=record.name, limit=limit))
        await hint_orphans(swarm, options)
    if options.json:
        print_json({"runs": [run_summary(run) for run in found]})
    elif not found:
        note(f"{record.name} has not been run yet: swarm run {record.name}")
    else:
        print_lines(run_table(stdout(), found))


@click.command("validate", cls=SwarmCommand)
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH..."
)
@pass_globals
@asynchronous
async def validate(options: Globals, paths: tuple[Path, ...]) -> int:
    """Check workflows without registering them, against the agents that are registered.

    PATH is a workflow.yaml or the folder that holds one.
    """
    code: int = ExitCode.OK
    documents: list[JsonObject] = []
    async with session(options) as swarm:
        for path in paths:
            try:
                problems = await swarm.workflows.validate(path)
                if problems:
                    raise DefinitionError(problems)
            except SwarmError as error:
                show_error(error, stderr())
                code = code or error.exit_code
                documents.append({"path": str(path), "valid": False, "error": error.as_json()})
                continue
            documents.append({"path": str(path), "valid": True})
            if not options.json:
                print_lines([f"{clean(str(path))} is valid"])
    if options.json:
        print_json({"workflows": documents})
    return code
