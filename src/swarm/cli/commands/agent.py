"""``swarm agent list|info``: what is registered."""

from __future__ import annotations

import click

from swarm.cli.arguments import AGENT
from swarm.cli.context import asynchronous, reading
from swarm.cli.documents import agent_detail, agent_document
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.definitions import agent_tables, permission_lines
from swarm.cli.render.tables import facts, table
from swarm.cli.terminal import clean, stdout


@click.command("list", cls=SwarmCommand)
@pass_globals
@asynchronous
async def list_(options: Globals) -> None:
    """List the registered agents."""
    async with reading(options) as records:
        agents = await records.store.list_agents()
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
    async with reading(options) as records:
        record = await records.agent(agent)
        granted = await records.granted(record)
        versions = [one.version for one in await records.store.list_agents(record.name)]
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
    print_lines(agent_tables(terminal, definition))
    requested = definition.get("permissions", {})
    if lines := permission_lines(terminal, requested, granted):
        print_lines(["", terminal.style("PERMISSIONS", bold=True), *lines])
