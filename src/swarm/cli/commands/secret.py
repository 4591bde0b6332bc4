"""``swarm secret set|get|list|delete``"""

from __future__ import annotations

import os

import click

from swarm.bootstrap.vaults import open_vault
from swarm.cli.context import asynchronous, read_settings, reading
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.tables import table
from swarm.cli.secrets import read_value, scoped_workflow, secret_document, workflow_option
from swarm.cli.terminal import clean, stdout
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import SECRET_PREFIX
from swarm.vault.identity import SecretIdentity, check_name
from swarm.vault.vault import NewSecret


@click.command("set", cls=SwarmCommand)
@click.argument("name")
@click.argument("value", nargs=-1, metavar="")
@workflow_option("Only runs of this workflow may read it, of any of its versions.")
@click.option("--keep-newline", is_flag=True, help="Keep a newline at the end of standard input.")
@pass_globals
@asynchronous
async def set_(
    options: Globals, name: str, value: tuple[str, ...], workflow: str | None, keep_newline: bool
) -> None:
    """Store a secret, or give it a new value.

    The value is read from standard input; on a terminal, from a prompt that does not show it. One
    newline at its end is left out. It is encrypted before it is stored; the first secret of a home
    makes the master key. Without --workflow, every workflow of the project may use it. Agents get
    it only if their manifest requests it and the request was granted.
    """
    if value:
        raise click.UsageError(
            "a value on the command line can be seen by others and stays in the shell's history; "
            f"pipe it in, or run `swarm secret set {clean(name)[:64]}` alone and type it"
        )
    check_name(name)
    settings = read_settings(options)
    async with open_vault(settings) as opened:
        scoped = await scoped_workflow(opened.records, workflow)
        text = read_value(settings.max_secret_bytes, keep_newline=keep_newline)
        identity = SecretIdentity(name, scoped.name if scoped else None)
        await opened.vault.put([NewSecret(identity, text, scoped.id if scoped else None)])
        record = await opened.records.store.get_secret(name, identity.scope, identity.workflow)
    if options.json and record is not None:
        print_json(secret_document(record))
    elif not options.json:
        print_lines([f"stored the secret {identity}"])
    if SECRET_PREFIX + name in os.environ:
        note(f"{SECRET_PREFIX}{name} is set in this environment, and overrides it here")


@click.command("get", cls=SwarmCommand)
@click.argument("name")
@workflow_option("The secret of this workflow, not the project's.")
@pass_globals
@asynchronous
async def get(options: Globals, name: str, workflow: str | None) -> None:
    """Print a secret's value, and a newline; with --json, the value exactly."""
    async with open_vault(read_settings(options)) as opened:
        scoped = await scoped_workflow(opened.records, workflow)
        identity = SecretIdentity(name, scoped.name if scoped else None)
        value = await opened.vault.get(identity)
    if options.json:
        print_json({"name": name, "workflow": identity.workflow, "value": value})
        return
    print_lines([clean(value) if stdout().is_terminal else value])


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


@click.command("delete", cls=SwarmCommand)
@click.argument("name")
@workflow_option("The secret of this workflow, not the project's.")
@pass_globals
@asynchronous
async def delete(options: Globals, name: str, workflow: str | None) -> None:
    """Delete a secret. It cannot be brought back; no key is needed."""
    async with open_vault(read_settings(options)) as opened:
        scoped = await scoped_workflow(opened.records, workflow)
        identity = SecretIdentity(name, scoped.name if scoped else None)
        store = opened.records.store
        if not await store.delete_secret(name, identity.scope, identity.workflow):
            raise await opened.vault.unknown(identity)
    if options.json:
        print_json({"deleted": {"name": name, "workflow": identity.workflow}})
    else:
        print_lines([f"deleted the secret {clean(str(identity))}"])
