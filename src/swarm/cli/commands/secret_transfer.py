"""``swarm secret import|export``: a JSON document with readable values."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from msgspec.structs import replace

from swarm.bootstrap.vaults import open_vault
from swarm.cli.context import asynchronous, read_settings
from swarm.cli.documents import identity_document
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.secrets import (
    identity_of,
    new_secret,
    read_text,
    scope_options,
)
from swarm.cli.terminal import stdout
from swarm.kernel.errors import (
    ConflictError,
    InputError,
    InvalidError,
    RefusedError,
    UnavailableError,
)
from swarm.kernel.json import JsonObject, JsonValue, dumps, loads
from swarm.store.records import SecretIdentity, SecretScope

FORMAT = "swarm-secrets-1"
MAX_DOCUMENT_FACTOR = 256
"""How many secrets of the largest size a document to import may hold."""


@click.command("export", cls=SwarmCommand)
@scope_options("Only the secrets of this workflow.", "Only the secrets of the organization.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a new file that only its owner may read; one that is there is never overwritten.",
)
@pass_globals
@asynchronous
async def export(
    options: Globals, workflow: str | None, organization: bool, output: Path | None
) -> None:
    """Write secrets, readable, as a JSON document that `swarm secret import` reads.

    It goes to standard output, unless that is a terminal. The values are not encrypted: pipe the
    document into a program that encrypts it, such as age or gpg.
    """
    if output is None and stdout().is_terminal:
        raise RefusedError(
            "the values would be shown on the terminal",
            remedy="pipe them into a program, or name a file with --output",
        )
    wanted = identity_of("", workflow, organization)
    everything = workflow is None and not organization
    async with open_vault(read_settings(options)) as opened:
        records = [
            record
            for record in await opened.records.store.list_secrets()
            if everything or replace(record.identity, name="") == wanted
        ]
        opened_records = await opened.vault.open_all(records)
    secrets: list[JsonValue] = [
        {**identity_document(record.identity), "value": value} for record, value in opened_records
    ]
    document: JsonObject = {"format": FORMAT, "secrets": secrets}
    if output is None:
        print_json(document)
        return
    _write_private(output, dumps(document) + "\n")
    count = len(secrets)
    if options.json:
        print_json({"exported": count, "file": str(output)})
    else:
        print_lines([f"wrote {count:,} secrets, readable, to {output}"])


@click.command("import", cls=SwarmCommand)
@click.argument(
    "file", type=click.Path(path_type=Path, allow_dash=True), default=Path("-"), metavar="[FILE]"
)
@click.option("--replace", is_flag=True, help="Give secrets that are there the new values.")
@pass_globals
@asynchronous
async def import_(options: Globals, file: Path, replace: bool) -> None:
    """Store the secrets of a JSON document, all or none.

    FILE is what `swarm secret export` wrote, or an object {"NAME": "value"}; without it, or with
    -, standard input. Workflows that it names must be registered.
    """
    settings = read_settings(options)
    entries = _entries(_read(file, MAX_DOCUMENT_FACTOR * settings.max_secret_bytes))
    async with open_vault(settings) as opened:
        secrets = [await new_secret(opened.records, *_secret(entry)) for entry in entries]
        if len({secret.identity for secret in secrets}) < len(secrets):
            raise ConflictError("the document gives a secret twice", remedy="give it once")
        if secrets:
            await opened.vault.put(secrets, may_replace=replace)
    names: list[JsonValue] = [str(secret.identity) for secret in secrets]
    if options.json:
        print_json({"imported": names})
    else:
        print_lines([f"stored {len(names):,} secrets"])


def _read(file: Path, max_bytes: int) -> str:
    if str(file) == "-":
        if sys.stdin.isatty():
            note("reading the document from the terminal; end it with Ctrl-D")
        return read_text(sys.stdin.buffer, max_bytes, "the document")
    try:
        with file.open("rb") as stream:
            return read_text(stream, max_bytes, "the document")
    except OSError as error:
        raise InputError(
            f"it cannot be read: {error.strerror}",
            where=str(file),
            remedy="give a file that is there and that you may read",
        ) from None


def _entries(text: str) -> list[JsonObject]:
    """Objects with name, workflow and value. No error quotes what is in the document."""
    try:
        document = loads(text)
    except InvalidError:
        raise _malformed("it is not JSON") from None
    if isinstance(document, dict) and "format" not in document:
        return [{"name": name, "value": one} for name, one in document.items()]
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _malformed(f"its format is not {FORMAT}")
    listed = document.get("secrets")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise _malformed("`secrets` is not a list of objects")
    return listed


def _secret(entry: JsonObject) -> tuple[SecretIdentity, str]:
    name, workflow, value = entry.get("name"), entry.get("workflow"), entry.get("value")
    if not isinstance(name, str) or not (workflow is None or isinstance(workflow, str)):
        raise _malformed("the name or workflow of a secret is not text")
    if not isinstance(value, str):
        raise _malformed(f"the value of {name} is not text")
    identity = SecretIdentity(name, workflow)
    if entry.get("scope") == SecretScope.ORGANIZATION and workflow is None:
        identity = SecretIdentity.of_organization(name)
    if entry.get("scope", identity.scope) != identity.scope:
        raise _malformed(f"the scope of {name} does not fit")
    return identity, value


def _malformed(why: str) -> InputError:
    return InputError(
        f"the document cannot be used: {why}",
        remedy='give what `swarm secret export` writes, or {"NAME": "value"}; nothing was stored',
    )


def _write_private(path: Path, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConflictError(
            "there is a file of this name already",
            where=str(path),
            remedy="name another; nothing was written",
        ) from None
    except OSError as error:
        raise UnavailableError(
            f"it cannot be written: {error.strerror}",
            where=str(path),
            remedy="name a file in a folder that you may write",
        ) from None
