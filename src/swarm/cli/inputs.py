"""Inputs from the command line: JSON as text, file or stream, ``name=value``, and local paths.

Only here does a string become a path, and only for inputs that are declared as files or
directories: a file is copied into the artifact store, a directory is granted read-only to the run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from swarm.cli.output import note
from swarm.client.local_files import take_path
from swarm.definitions.fields import FieldDefinition
from swarm.definitions.files import is_file_value
from swarm.definitions.values import describe
from swarm.kernel.errors import InputError, InvalidError, NotFoundError
from swarm.kernel.json import JsonObject, JsonValue, loads
from swarm.store.ports import ArtifactStore


@dataclass(frozen=True, slots=True)
class GivenInputs:
    """Inputs ready for a run."""

    values: JsonObject
    mounts: dict[str, str] = field(default_factory=dict)
    """``{reference: absolute path}`` of the directories that ``values`` refer to."""


def read_input(argument: str | None, max_bytes: int) -> JsonObject:
    """The JSON object that the argument gives: itself, ``@file``, or ``-``/``@-`` for stdin.

    Raises:
        InputError: not JSON (the message has line and column), not an object, or too large.
        NotFoundError: no such file.
    """
    if argument is None or not argument.strip():
        return {}
    where, value = read_json(argument, max_bytes)
    if not isinstance(value, dict):
        raise InputError(
            f"the input must be a JSON object, got {_kind(value)}",
            where=where,
            remedy='name the inputs: {"name": value}',
        )
    return value


def read_json(argument: str, max_bytes: int) -> tuple[str, JsonValue]:
    """The JSON value that the argument gives, as :func:`read_input`, and where it was read."""
    if argument in ("-", "@-"):
        where, data = "standard input", _read_stdin(max_bytes)
    elif argument.startswith("@"):
        where, data = argument[1:], _read_file(Path(argument[1:]), max_bytes)
    else:
        where, data = "input", os.fsencode(argument)
    if len(data) > max_bytes:
        raise InputError(
            f"the input is larger than the limit of {max_bytes:,} bytes",
            where=where,
            remedy="pass large data as a file input, or raise SWARM_MAX_INPUT_BYTES",
        )
    try:
        return where, loads(data)
    except InvalidError as error:
        raise InputError(error.message, where=where, remedy=_json_remedy(where)) from None


def add_pairs(
    values: JsonObject, pairs: Sequence[str], fields: Sequence[FieldDefinition]
) -> JsonObject:
    """``values`` with the ``name=value`` pairs added.

    A value is text for inputs declared as string, file or directory, and JSON for all others. A
    name that is not declared is kept as text, for the check of all inputs to refuse it by name.

    Raises:
        InputError: no ``=``, a name given twice, or a value that is not JSON.
    """
    types = {declared.name: declared.type for declared in fields}
    result = dict(values)
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise InputError(
                f"`{pair}` is not of the form name=value", remedy="write `--input name=value`"
            )
        if name in result:
            raise InputError(f"the input `{name}` is given twice", remedy="give it once")
        kind = types.get(name, "string")
        result[name] = text if kind in ("string", "file", "directory") else _json(name, kind, text)
    return result


async def take_paths(
    values: JsonObject, fields: Sequence[FieldDefinition], artifacts: ArtifactStore
) -> GivenInputs:
    """Replace local paths given for file and directory inputs by file values.

    Raises:
        NotFoundError: nothing is there.
        InputError: no path, or a directory where a file is wanted, or the other way round.
    """
    result = dict(values)
    mounts: dict[str, str] = {}
    for declared in fields:
        value = values.get(declared.name)
        if value is None or declared.type not in ("file", "directory") or is_file_value(value):
            continue
        if not isinstance(value, str):
            raise InputError(
                f"it must be the path of a {declared.type}, got {describe(value)}",
                where=f"input {declared.name}",
                remedy=f'write the path as text: {{"{declared.name}": "./path"}}',
            )
        where = f"input {declared.name}"
        taken = await take_path(value, artifacts, kind=declared.type, where=where)
        if taken.mount is not None:
            mounts[taken.value.reference] = taken.mount
        result[declared.name] = taken.value.as_json()
    return GivenInputs(result, mounts)


def _read_stdin(max_bytes: int) -> bytes:
    if sys.stdin is None:
        raise InputError("there is no standard input to read", remedy="give the input as text")
    if sys.stdin.isatty():
        note("reading the input as JSON from the terminal; end it with Ctrl-D")
    return _read_limited(sys.stdin.buffer, max_bytes)


def _read_file(path: Path, max_bytes: int) -> bytes:
    try:
        with path.expanduser().open("rb") as stream:
            return _read_limited(stream, max_bytes)
    except FileNotFoundError:
        remedy = "give a file that is there after the @"
        raise NotFoundError("there is no such file", where=str(path), remedy=remedy) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"it cannot be read: {reason}", where=str(path), remedy="give a file that you may read"
        ) from None


def _read_limited(stream: BinaryIO, max_bytes: int) -> bytes:
    """At most one byte more than the limit, which tells that there is more."""
    return stream.read(max_bytes + 1)


def _json(name: str, kind: str, text: str) -> JsonValue:
    try:
        return loads(os.fsencode(text))
    except InvalidError as error:
        raise InputError(
            f"`{text}` is not {_an(kind)} in JSON ({error.message})",
            where=f"input {name}",
            remedy=f"write {_an(kind)} as JSON writes it",
        ) from None


def _json_remedy(where: str) -> str:
    if where == "input":
        return """write JSON in single quotes: '{"name": "value"}'; or @FILE, or - for stdin"""
    return "mend the JSON there"


def _kind(value: JsonValue) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _an(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
