"""What the commands about secrets share: which secret is meant, and documents without values."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import click
from msgspec.structs import replace

from swarm.bootstrap.records import Records
from swarm.cli.arguments import WORKFLOW
from swarm.cli.output import note
from swarm.kernel.errors import InputError
from swarm.packages.references import split_reference
from swarm.store.records import SecretIdentity
from swarm.vault.vault import NewSecret

PROMPT = "Value (it is not shown)"


def scope_options(workflow: str, organization: str) -> Callable[[Any], Any]:
    """The options ``--workflow`` and ``--organization``, with what they mean for a command."""

    def decorated(command: Any) -> Any:
        named = click.option("--workflow", type=WORKFLOW, metavar="WORKFLOW", help=workflow)
        flag = click.option("--organization", is_flag=True, help=organization)
        return named(flag(command))

    return decorated


def identity_of(name: str, workflow: str | None, organization: bool) -> SecretIdentity:
    """The secret that the options mean. Raises a usage error if they contradict each other."""
    if not organization:
        return SecretIdentity(name, workflow)
    if workflow is not None:
        raise click.UsageError("--workflow and --organization cannot be given together")
    return SecretIdentity.of_organization(name)


async def new_secret(records: Records, identity: SecretIdentity, value: str) -> NewSecret:
    """A value to be stored, for a workflow that is registered.

    Raises:
        NotFoundError: its workflow is not registered; offers the nearest.
        InputError: a version of the workflow is named.
    """
    if identity.workflow is None:
        return NewSecret(identity, value)
    if split_reference(identity.workflow)[1] is not None:
        raise InputError(
            "a secret is for all versions of a workflow",
            where=identity.workflow,
            remedy="leave the version out",
        )
    workflow = await records.workflow(identity.workflow)
    return NewSecret(replace(identity, workflow=workflow.name), value, workflow.id)


def read_value(max_bytes: int, *, keep_newline: bool) -> str:
    """The value from a hidden prompt on a terminal, else from standard input.

    Raises:
        InputError: it is larger than ``max_bytes``, or no text.
    """
    if sys.stdin is None:
        raise InputError("there is no standard input to read", remedy="pipe the value in")
    if sys.stdin.isatty():
        prompted: str = click.prompt(
            PROMPT, hide_input=True, default="", show_default=False, err=True
        )
        return prompted
    text = read_text(sys.stdin.buffer, max_bytes + 1, "the value")
    if keep_newline or not text.endswith("\n"):
        return text
    note("the newline at the end was left out (--keep-newline keeps it)")
    return text.removesuffix("\n").removesuffix("\r")


def read_text(stream: BinaryIO, max_bytes: int, what: str) -> str:
    """The stream's text; one byte more than the limit is enough to refuse it.

    Raises:
        InputError: it is larger than ``max_bytes``, or no UTF-8. Its bytes are not quoted.
    """
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(
            f"{what} is larger than the limit of {max_bytes - 1:,} bytes",
            remedy="keep large data in a file, or raise SWARM_MAX_SECRET_BYTES",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            f"{what} is binary, not UTF-8 text",
            remedy="encode it first, for example with `base64 -w0`, and let the agent decode it",
        ) from None
