"""``swarm secret set|get|delete``"""

from __future__ import annotations

import os

import click
from msgspec.structs import replace

from swarm.bootstrap.vaults import open_vault
from swarm.cli.context import asynchronous, read_settings
from swarm.cli.documents import identity_document, secret_document
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.secrets import (
    identity_of,
    new_secret,
    read_value,
    scope_options,
)
from swarm.cli.terminal import clean, stdout
from swarm.kernel.settings import SECRET_PREFIX
from swarm.vault.identity import check_name


@click.command("set", cls=SwarmCommand)
@click.argument("name")
@click.argument("misplaced", nargs=-1, metavar="")
@scope_options(
    "Only runs of this workflow may read it, of any of its versions.",
    "Every project of the organization may read it.",
)
@click.option("--keep-newline", is_flag=True, help="Keep a newline at the end of standard input.")
@pass_globals
@asynchronous
async def set_(
    options: Globals,
    name: str,
    misplaced: tuple[str, ...],
    workflow: str | None,
    organization: bool,
    keep_newline: bool,
) -> None:
    """Store a secret, or give it a new value.

    The value is read from standard input; on a terminal, from a prompt that does not show it. One
    newline at its end is left out. It is encrypted before it is stored; the first secret of a home
    makes the master key. It is the project's, for all its workflows, unless an option says else; a
    run takes its workflow's secret first, then the project's, then the organization's. Agents get
    it only if their manifest requests it and the request was granted.
    """
    if misplaced:
        raise click.UsageError(
            "a value on the command line can be seen by others and stays in the shell's history; "
            f"pipe it in, or run `swarm secret set {clean(name)[:64]}` alone and type it"
        )
    check_name(name)
    given = identity_of(name, workflow, organization)
    settings = read_settings(options)
    async with open_vault(settings) as opened:
        # A workflow that is not there is told before the value is asked for.
        secret = await new_secret(opened.records, given, "")
        value = read_value(settings.max_secret_bytes, keep_newline=keep_newline)
        await opened.vault.put([replace(secret, value=value)])
        record = await opened.records.store.get_secret(secret.identity)
    if options.json and record is not None:
        print_json(secret_document(record))
    elif not options.json:
        print_lines([f"stored the secret {secret.identity}"])
    if SECRET_PREFIX + name in os.environ:
        note(f"{SECRET_PREFIX}{name} is set in this environment, and overrides it here")


@click.command("get", cls=SwarmCommand)
@click.argument("name")
@scope_options(
    "The secret of this workflow, not the project's.",
    "The secret of the organization, not the project's.",
)
@pass_globals
@asynchronous
async def get(options: Globals, name: str, workflow: str | None, organization: bool) -> None:
    """Print a secret's value, and a newline; with --json, the value exactly."""
    identity = identity_of(name, workflow, organization)
    async with open_vault(read_settings(options)) as opened:
        value = await opened.vault.get(identity)
    if options.json:
        print_json({**identity_document(identity), "value": value})
        return
    print_lines([clean(value) if stdout().is_terminal else value])


@click.command("delete", cls=SwarmCommand)
@click.argument("name")
@scope_options(
    "The secret of this workflow, not the project's.",
    "The secret of the organization, not the project's.",
)
@pass_globals
@asynchronous
async def delete(options: Globals, name: str, workflow: str | None, organization: bool) -> None:
    """Delete a secret. It cannot be brought back; no key is needed."""
    identity = identity_of(name, workflow, organization)
    async with open_vault(read_settings(options)) as opened:
        if not await opened.records.store.delete_secret(identity):
            raise await opened.vault.unknown(identity)
    if options.json:
        print_json({"deleted": identity_document(identity)})
    else:
        print_lines([f"deleted the secret {clean(str(identity))}"])
