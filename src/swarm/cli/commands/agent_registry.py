"""``swarm agent register|unregister``"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from swarm.bootstrap.assembly import Swarm
from swarm.cli.arguments import AGENT, check_all
from swarm.cli.context import asynchronous
from swarm.cli.documents import agent_document
from swarm.cli.errors import show_error
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.definitions import permission_lines
from swarm.cli.session import session
from swarm.cli.terminal import clean, stderr, stdout
from swarm.kernel.errors import ExitCode, SwarmError
from swarm.kernel.json import JsonObject
from swarm.packages.builtin import catalog_root
from swarm.packages.references import split_reference
from swarm.packages.registration import FailedRegistration, RegisteredAgent


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
    help="Grant what the manifest requests, or refuse a package that requests more than was granted"
    " before. Default: grant it to a folder, not to an archive.",
)
@pass_globals
@asynchronous
async def register(
    options: Globals, paths: tuple[Path, ...], all_: bool, grant: bool | None
) -> int:
    """Register agents and grant what they request.

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
