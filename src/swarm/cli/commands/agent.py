"""``swarm agent list|info|register|unregister``: what is registered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from swarm.bootstrap.assembly import Swarm
from swarm.cli.arguments import AGENT, check_all
from swarm.cli.context import asynchronous, session
from swarm.cli.documents import agent_detail, agent_document
from swarm.cli.errors import show_error
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.definitions import field_table, permission_lines
from swarm.cli.render.tables import facts, table
from swarm.cli.terminal import clean, stderr, stdout
from swarm.kernel.errors import ExitCode, SwarmError
from swarm.kernel.json import JsonObject
from swarm.packages.builtin import catalog_root
from swarm.packages.references import split_reference
from swarm.packages.registration import FailedRegistration, RegisteredAgent


@click.command("list", cls=SwarmCommand)
@pass_globals
@asynchronous
async def list_(options: Globals) -> None:
    """List the registered agents."""
    async with session(options) as swarm:
        agents = await swarm.agents.list()
    if options.json:
        print_json({"agents": [agent_document(agent) for agent in agents]})
        return
    if not agents:
        note("no agent is registered yet: swarm agent register --all")
        return
    rows = [[agent.name, agent.version, agent.runtime, agent.description] for agent in agents]
    print_lines(table(stdout(), ["NAME", "VERSION", "RUNTIME", "DESCRIPTION"], rows))


@click.command("info", cls=SwarmCommand)
@click.argument("agent", type=AGENT)
@pass_globals
@asynchronous
async def info(options: Globals, agent: str) -> None:
    """Show what an agent takes, gives and may do.

    AGENT is `name` (the highest version registered) or `name@version`.
    """
    async with session(options) as swarm:
        record = await swarm.agents.resolve(agent)
        granted = await swarm.agents.granted(record)
        everything = await swarm.agents.list()
    versions = [other.version for other in everything if other.name == record.name]
    if options.json:
        print_json(agent_detail(record, granted, versions))
        return
    terminal = stdout()
    definition = record.definition
    runtime = definition.get("runtime", {})
    entry = runtime.get("entry", "")
    print_lines([terminal.style(f"{record.name}@{record.version}", bold=True)])
    if record.description:
        print_lines([clean(record.description)])
    pairs = [
        ("runtime", f"{record.runtime}, {entry if isinstance(entry, str) else ' '.join(entry)}"),
        ("limits", f"{record.memory_mb} MiB, {record.timeout_seconds:g} s"),
        ("requires", ", ".join(runtime.get("requires", ()))),
        ("dependencies", ", ".join(definition.get("dependencies", ()))),
        ("author", record.author),
        ("tags", ", ".join(record.tags)),
        ("versions", ", ".join(versions)),
        ("digest", record.digest),
        ("source", record.source),
        ("registered", record.created_at),
    ]
    print_lines(["", *facts(terminal, pairs)])
    print_lines(field_table(terminal, "INPUT", definition.get("inputs", ())))
    print_lines(field_table(terminal, "OUTPUT", definition.get("outputs", ())))
    requested = definition.get("permissions", {})
    if lines := permission_lines(terminal, requested, granted):
        print_lines(["", terminal.style("PERMISSIONS", bold=True), *lines])


@dataclass
class _Tally:
    """What a registration of several packages came to."""

    documents: list[JsonObject]
    exit_code: int = ExitCode.OK

    def add_failure(self, path: Path, error: SwarmError) -> None:
        show_error(error, stderr())
        self.documents.append({"path": str(path), "error": error.as_json()})
        self.exit_code = self.exit_code or error.exit_code


@click.command("register", cls=SwarmCommand)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="PATH...")
@click.option(
    "--all",
    "all_",
    is_flag=True,
    help="Register every package in the folder PATH; without one, the built-in agents and those"
    " in the home's agents/ folder.",
)
@click.option(
    "--grant/--no-grant",
    default=None,
    help="Grant what the manifest requests. Default: grant it to a folder, not to an archive.",
)
@pass_globals
@asynchronous
async def register(
    options: Globals, paths: tuple[Path, ...], all_: bool, grant: bool | None
) -> int:
    """Register agents, and grant what they request.

    PATH is a package's folder or an .apkg archive; with --all, a folder of packages. A copy is
    made: later changes of the folder take effect when it is registered again.
    """
    check_all(paths, all_)
    tally = _Tally([])
    async with session(options) as swarm:
        if all_:
            folders = paths or (catalog_root() / "agents", swarm.home.agents)
            results: list[RegisteredAgent | FailedRegistration] = []
            for folder in folders:
                results += await swarm.agents.register_all(
                    folder, grant=grant, on_progress=_progress
                )
            _tell_all(tally, results, options)
            if not results and not options.json:
                note(f"no package was found in {' or '.join(map(str, folders))}")
        else:
            await _register_each(swarm, paths, grant, tally, options)
    if options.json:
        print_json({"agents": tally.documents})
    return tally.exit_code


async def _register_each(
    swarm: Swarm, paths: Sequence[Path], grant: bool | None, tally: _Tally, options: Globals
) -> None:
    for path in paths:
        try:
            result = await swarm.agents.register(path, grant=grant, on_progress=_progress)
        except SwarmError as error:
            if len(paths) == 1:
                raise
            tally.add_failure(path, error)
        else:
            _tell_all(tally, [result], options)


def _tell_all(
    tally: _Tally, results: Sequence[RegisteredAgent | FailedRegistration], options: Globals
) -> None:
    terminal = stdout()
    for result in results:
        if isinstance(result, FailedRegistration):
            tally.add_failure(result.path, result.error)
            continue
        record = result.record
        tally.documents.append(
            {
                **agent_document(record),
                "created": result.created,
                "replaced_digest": result.replaced_digest,
                "requested": result.requested,
                "granted": result.grants,
            }
        )
        if options.json:
            continue
        verb = "registered" if result.created else "already registered"
        replaced = ", replacing other content of this version" if result.replaced_digest else ""
        name = terminal.style(f"{record.name}@{record.version}", bold=True)
        print_lines([f"{verb} {name}{replaced}"])
        print_lines(permission_lines(terminal, result.requested, result.grants))


def _progress(message: str) -> None:
    note(clean(message))


@click.command("unregister", cls=SwarmCommand)
@click.argument("agent", type=AGENT)
@pass_globals
@asynchronous
async def unregister(options: Globals, agent: str) -> None:
    """Take an agent out of the registry.

    AGENT is `name` (all its versions) or `name@version`. Runs that use it go on to their end.
    """
    async with session(options) as swarm:
        count = await swarm.agents.unregister(agent)
    if options.json:
        print_json({"agent": split_reference(agent)[0], "versions_removed": count})
    else:
        versions = "1 version" if count == 1 else f"{count} versions"
        print_lines([f"unregistered {clean(agent)} ({versions})"])
