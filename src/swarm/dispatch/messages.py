"""The messages between the processes of one home: one JSON object per line, UTF-8.

    to the host     {"id": 1, "method": "...", "params": {...}, "stream": false}   a call
                    {"id": 1, "cancel": true}                                      ends a stream
    from the host   {"id": 1, "event": {...}}                                      of a stream
                    {"id": 1, "result": ...}                                       the end of a call
                    {"id": 1, "error": {"code", "message", "where", "remedy"}}     or its failure
                    {"id": null, "error": {...}}                                   of the connection

Ids are chosen by the caller and count within one connection. Nothing here does I/O but
:func:`read_line`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeAlias

from swarm.kernel.errors import (
    DefinitionError,
    InvalidError,
    NotFoundError,
    Problem,
    SwarmError,
)
from swarm.kernel.json import JsonObject, JsonValue, dump_bytes, loads
from swarm.kernel.settings import MIB

MAX_MESSAGE_BYTES = 16 * MIB
"""Longest line, its newline included."""


@dataclass(frozen=True, slots=True)
class Call:
    """Asks the host to run its handler; events are sent only if ``stream``."""

    id: int
    method: str
    params: JsonObject
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """The caller no longer reads the stream."""

    id: int


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    value: JsonObject


@dataclass(frozen=True, slots=True)
class Result:
    id: int
    value: JsonValue


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed; with no id, why the whole connection ends."""

    id: int | None
    error: SwarmError


Request: TypeAlias = Call | Cancel
Reply: TypeAlias = Event | Result | Failure


def encode(message: Request | Reply) -> bytes:
    """The line of ``message``.

    Raises:
        InvalidError: it is not JSON, or longer than ``MAX_MESSAGE_BYTES``.
    """
    document: JsonObject = {"id": message.id}
    match message:
        case Call():
            document |= {"method": message.method, "params": message.params}
            document["stream"] = message.stream
        case Cancel():
            document["cancel"] = True
        case Event():
            document["event"] = message.value
        case Result():
            document["result"] = message.value
        case Failure():
            document["error"] = message.error.as_json()
    line = dump_bytes(document, sort_keys=False) + b"\n"
    if len(line) > MAX_MESSAGE_BYTES:
        raise InvalidError(
            f"a message to another Swarm process is {len(line)} bytes long, "
            f"which is over the limit of {MAX_MESSAGE_BYTES}",
            remedy="pass large values as files",
        )
    return line


def decode_request(line: bytes) -> Request:
    """Raises InvalidError on anything that :func:`encode` would not write."""
    match loads(line):
        case {"id": int(number), "method": str(method), "params": dict(params), **rest}:
            return Call(number, method, params, rest.get("stream") is True)
        case {"id": int(number), "cancel": True}:
            return Cancel(number)
    raise InvalidError("this is not a request of Swarm's protocol between hosts")


def decode_reply(line: bytes) -> Reply:
    """Raises InvalidError on anything that :func:`encode` would not write."""
    match loads(line):
        case {"id": int(number), "event": dict(value)}:
            return Event(number, value)
        case {"id": int(number), "result": value}:
            return Result(number, value)
        case {"id": int() | None as number, "error": dict(error)}:
            return Failure(number, error_from_json(error))
    raise InvalidError("this is not a reply of Swarm's protocol between hosts")


async def read_line(reader: asyncio.StreamReader) -> bytes | None:
    """The next line, or None when the other side is gone.

    Raises:
        InvalidError: the line is longer than ``MAX_MESSAGE_BYTES``.
    """
    try:
        return await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except asyncio.LimitOverrunError:
        raise InvalidError(
            f"a message from another Swarm process is over the limit of {MAX_MESSAGE_BYTES} bytes"
        ) from None


def error_from_json(document: JsonObject) -> SwarmError:
    """The error that was sent as ``SwarmError.as_json()``, of the same class where it is known."""
    code, message = str(document.get("code")), str(document.get("message"))
    where, remedy = document.get("where"), document.get("remedy")
    kind = _CLASSES.get(code, SwarmError)
    if kind is DefinitionError:
        if problems := _read_problems(document.get("problems")):
            return DefinitionError(problems)
        kind = InvalidError
    if kind is NotFoundError:
        return NotFoundError(message, where=where, remedy=remedy)
    return kind(message, where=where, remedy=remedy)


def _read_problems(documents: JsonValue) -> list[Problem]:
    return [
        Problem(
            str(document.get("message")),
            str(document.get("file")),
            document.get("line"),
            document.get("column"),
            document.get("remedy"),
        )
        for document in (documents if isinstance(documents, list) else [])
        if isinstance(document, dict)
    ]


def _all_classes(base: type[SwarmError]) -> dict[str, type[SwarmError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found |= _all_classes(child)
    return found


_CLASSES = _all_classes(SwarmError)
