"""``swarm secret list``, which needs no cryptography."""

from __future__ import annotations

import os

import click

from swarm.cli.context import asynchronous, reading
from swarm.cli.documents import secret_document
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.tables import table
from swarm.cli.terminal import stdout
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import SECRET_PREFIX


@click.command("list", cls=SwarmCommand)
@pass_globals
@asynchronous
async def list_(options: Globals) -> None:
    """List the secrets, without their values; no key is needed.

    Variables SWARM_SECRET_<NAME> of this process are listed too: they override what is stored.
    """
    async with reading(options) as records:
        stored = await records.store.list_secrets()
    variables = sorted(
        name.removeprefix(SECRET_PREFIX) for name in os.environ if name.startswith(SECRET_PREFIX)
    )
    documents: list[JsonObject] = [secret_document(record) for record in stored]
    documents += [{"name": name, "scope": "environment", "workflow": None} for name in variables]
    if options.json:
        print_json({"secrets": documents})
        return
    if not documents:
        note("no secrets yet; `swarm secret set NAME` stores one")
        return
    rows = [
        [
            str(one["name"]),
            str(one["scope"]),
            str(one["workflow"] or ""),
            str(one.get("updated_at", ""))[:19].replace("T", " "),
            str(one.get("key_id") or "")[:11],
        ]
        for one in documents
    ]
    print_lines(table(stdout(), ["NAME", "SCOPE", "WORKFLOW", "SET (UTC)", "MASTER KEY"], rows))
