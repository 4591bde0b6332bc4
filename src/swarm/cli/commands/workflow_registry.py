"""``swarm workflow new|register|enable|disable|validate``."""

from __future__ import annotations

from pathlib import Path

import click

from swarm.cli.arguments import WORKFLOW, check_all
from swarm.cli.context import asynchronous
from swarm.cli.documents import workflow_document
from swarm.cli.errors import show_error
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.tables import table
from swarm.cli.session import session
from swarm.cli.terminal import clean, stderr, stdout
from swarm.kernel.errors import DefinitionError, ExitCode, SwarmError
from swarm.kernel.json import JsonObject
from swarm.packages.builtin import catalog_root
from swarm.packages.references import split_reference
from swarm.packages.registration import FailedRegistration
from swarm.packages.scaffold import create_workflow, list_templates
from swarm.packages.workflows import RegisteredWorkflow


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
