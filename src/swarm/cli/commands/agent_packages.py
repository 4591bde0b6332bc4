"""``swarm agent new|validate|pack|inspect``: packages that need not be registered."""

from __future__ import annotations

from pathlib import Path

import click

from swarm.cli.context import asynchronous, read_settings
from swarm.cli.errors import show_error
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.definitions import agent_tables
from swarm.cli.render.tables import facts, table
from swarm.cli.render.values import plural, size
from swarm.cli.terminal import clean, stderr, stdout
from swarm.definitions.loading import definition_to_json
from swarm.kernel.errors import DefinitionError, ExitCode, SwarmError
from swarm.kernel.json import JsonObject
from swarm.packages.archive import inspect_archive
from swarm.packages.archive import pack as pack_package
from swarm.packages.locking import lock_package
from swarm.packages.reading import read_package
from swarm.packages.scaffold import create_agent, list_templates

SHOWN_FILES = 200
"""Files of an archive that are listed for people; the others are counted."""


@click.command("new", cls=SwarmCommand)
@click.argument("name", required=False)
@click.option("--template", default="basic-agent", show_default=True, help="What to start from.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="The folder in which the new one is made.",
)
@click.option("--list", "list_", is_flag=True, help="List the templates.")
@pass_globals
def new(options: Globals, name: str | None, template: str, into: Path, list_: bool) -> None:
    """Make a new agent from a template, in the folder NAME."""
    if list_:
        templates = list_templates("agent")
        if options.json:
            print_json(
                {"templates": [{"name": t.name, "description": t.description} for t in templates]}
            )
        else:
            rows = [[one.name, one.description] for one in templates]
            print_lines(table(stdout(), ["TEMPLATE", "DESCRIPTION"], rows))
        return
    if name is None:
        raise click.UsageError("give the NAME of the new agent")
    folder = create_agent(name, template, into)
    if options.json:
        print_json({"name": name, "template": template, "path": str(folder.absolute())})
    else:
        print_lines([f"made {folder}"])
        note(f"next: swarm agent register {folder}")


@click.command("validate", cls=SwarmCommand)
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH..."
)
@pass_globals
def validate(options: Globals, paths: tuple[Path, ...]) -> int:
    """Check packages without registering them.

    PATH is a package's folder, its agent.yaml, or an .apkg archive. No code of it is run.
    """
    settings = read_settings(options)
    code: int = ExitCode.OK
    documents: list[JsonObject] = []
    for path in paths:
        try:
            package = read_package(path, settings)
        except SwarmError as error:
            show_error(error, stderr())
            code = code or error.exit_code
            documents.append({"path": str(path), "valid": False, "error": error.as_json()})
            continue
        name = f"{package.definition.name}@{package.definition.version}"
        documents.append(
            {"path": str(path), "valid": True, "agent": name, "digest": package.digest}
        )
        if not options.json:
            files = plural(len(package.files), "file")
            print_lines([f"{clean(str(path))}: {name} is valid ({files}, {size(package.size)})"])
    if options.json:
        print_json({"packages": documents})
    return code


@click.command("pack", cls=SwarmCommand)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="The archive to write, or a folder for `<name>-<version>.apkg`.",
)
@click.option(
    "--lock/--no-lock",
    default=True,
    show_default=True,
    help="Lock dependencies that have no lock yet.",
)
@pass_globals
@asynchronous
async def pack(options: Globals, path: Path, output: Path, lock: bool) -> None:
    """Write a reproducible .apkg archive of a package: same files, same bytes.

    Dependencies that the package declares and does not lock are locked first, to exact versions
    with hashes. The lock is written into the package's folder.
    """
    settings = read_settings(options)
    package, locked = read_package(path, settings), None
    if lock:
        package, locked = await lock_package(package, settings, lambda line: note(clean(line)))
    archive = pack_package(package, output)
    written = archive.stat().st_size
    if options.json:
        print_json(
            {
                "path": str(archive.absolute()),
                "digest": package.digest,
                "bytes": written,
                "lock": None if locked is None else str(locked),
            }
        )
        return
    if locked is not None:
        print_lines([f"locked {clean(str(locked))}"])
    print_lines([f"packed {archive} ({size(written)})"])


@click.command("inspect", cls=SwarmCommand)
@click.argument("archive", type=click.Path(path_type=Path))
@pass_globals
def inspect(options: Globals, archive: Path) -> int:
    """Show what an .apkg archive holds, without unpacking it or running anything."""
    report = inspect_archive(archive, read_settings(options))
    definition = definition_to_json(report.definition) if report.definition else None
    if report.problems:
        show_error(DefinitionError(report.problems), stderr())
    if options.json:
        print_json(
            {
                "path": str(report.path),
                "archive_bytes": report.archive_bytes,
                "unpacked_bytes": report.unpacked_bytes,
                "digest": report.digest,
                "definition": definition,
                "files": [
                    {
                        "path": file.path,
                        "size": file.size,
                        "sha256": file.sha256,
                        "executable": file.executable,
                    }
                    for file in report.files
                ],
                "problems": [str(problem) for problem in report.problems],
            }
        )
        return ExitCode.INVALID if report.problems else ExitCode.OK
    terminal = stdout()
    if definition is not None:
        print_lines(
            [terminal.style(f"{definition['name']}@{definition['version']}", bold=True), ""]
        )
    sizes = f"{size(report.archive_bytes)} packed, {size(report.unpacked_bytes)} unpacked"
    print_lines(facts(terminal, [("size", sizes), ("digest", report.digest)]))
    if definition is not None:
        print_lines(agent_tables(terminal, definition))
        asked = definition.get("permissions", {})
        if lines := [f"  {kind}: {clean(v)}" for kind, values in asked.items() for v in values]:
            print_lines(["", terminal.style("REQUESTS", bold=True), *lines])
    rows = [
        [file.path, size(file.size), "executable" if file.executable else ""]
        for file in report.files[:SHOWN_FILES]
    ]
    print_lines(["", *table(terminal, ["FILE", "SIZE", ""], rows)])
    if len(report.files) > SHOWN_FILES:
        print_lines([f"and {plural(len(report.files) - SHOWN_FILES, 'more file')}"])
    return ExitCode.INVALID if report.problems else ExitCode.OK
