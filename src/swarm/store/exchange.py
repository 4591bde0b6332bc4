"""Runs as JSON Lines: how a history goes from one database to another. Pure.

Each line is an object that says by ``record`` what it is; fields that are null are left out.

- ``header`` is the first: ``format`` and ``version``.
- ``workflow`` and ``agent`` come before what refers to them, once each.
- ``run`` begins a run; its ``step``, ``invocation``, ``answer`` and ``attribute`` lines follow.
- ``run_end`` ends it and says how many those were. ``complete`` is false if the run changed while
  it was being written: it is to be left out.

Files are not part of it, only references to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from swarm.definitions.fields import NAME_PATTERN, VERSION_PATTERN
from swarm.kernel.clock import from_text
from swarm.kernel.errors import InvalidError
from swarm.kernel.json import JsonObject, dump_bytes, loads
from swarm.kernel.settings import MIB
from swarm.store.records import (
    AgentRecord,
    AnswerRecord,
    ArchiveEntry,
    InvocationRecord,
    RunAttribute,
    RunRecord,
    StepRecord,
    StepState,
    WorkflowRecord,
)

FORMAT: Final = "swarm-runs"
VERSION: Final = 1
MAX_LINE_BYTES: Final = 64 * MIB
"""A line, its end included."""


class Header(Struct, frozen=True):
    """The first line."""

    format: str
    version: int
    created_at: str


class RunEnd(Struct, frozen=True):
    """The last line of a run."""

    run_id: str
    entries: int
    """Lines between ``run`` and this one, without those of workflows and agents."""
    complete: bool


Line: TypeAlias = Header | WorkflowRecord | AgentRecord | ArchiveEntry | RunEnd

_TYPES: Mapping[str, type[Any]] = {
    "header": Header,
    "workflow": WorkflowRecord,
    "agent": AgentRecord,
    "run": RunRecord,
    "step": StepRecord,
    "invocation": InvocationRecord,
    "answer": AnswerRecord,
    "attribute": RunAttribute,
    "run_end": RunEnd,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_RUN_ID: Final = re.compile(r"run_[0-9a-f]{32}")
_RUN_IDS = frozenset(
    {"run_id", "child_run_id", "parent_run_id", "root_run_id", "origin_run_id", "reused_from"}
)
_IDS = frozenset({"id", "agent_id", "workflow_id", "invocation_id"})


def write_line(line: Line) -> bytes:
    """One line of JSON, its end included."""
    document: JsonObject = {"record": _NAMES[type(line)]}
    for name in line.__struct_fields__:
        value = getattr(line, name)
        if value is not None:
            document[name] = value
    return dump_bytes(document, sort_keys=False) + b"\n"


def read_line(text: bytes) -> Line:
    """What one line says.

    Raises:
        InvalidError: it is too long, no JSON, or does not say what such a line must.
    """
    if len(text) > MAX_LINE_BYTES:
        raise InvalidError(f"it is longer than {MAX_LINE_BYTES:,} bytes")
    document = loads(text)
    name = document.pop("record", None) if isinstance(document, dict) else None
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None or name is None:
        raise InvalidError("it does not say by `record` what it is")
    if unknown := sorted(document.keys() - set(kind.__struct_fields__)):
        raise InvalidError(f"{name} has no field {unknown[0]}")
    try:
        line: Line = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        detail = str(error).replace("`$", f"`{name}")
        raise InvalidError(f"{name}: {detail}") from None
    _check(name, line)
    return line


def check_header(line: Line) -> None:
    """Raises InvalidError unless ``line`` is the header of a version that is known."""
    if not isinstance(line, Header) or line.format != FORMAT:
        raise InvalidError("it is not the header of exported runs")
    if line.version != VERSION:
        raise InvalidError(
            f"the format's version is {line.version}; this Swarm knows version {VERSION}",
            remedy="use a Swarm as new as the one that wrote it",
        )


def _check(name: str, line: Line) -> None:
    for field in line.__struct_fields__:
        value = getattr(line, field)
        if value is None:
            continue
        if field in _RUN_IDS or (field == "id" and name == "run"):
            _match(_RUN_ID, f"{name}.{field}", value)
        elif field in _IDS:
            _match(_ID, f"{name}.{field}", value)
        elif field.endswith("_at"):
            _check_moment(f"{name}.{field}", value)
    if isinstance(line, (WorkflowRecord, AgentRecord)):
        _match(re.compile(NAME_PATTERN), f"{name}.name", line.name)
        _match(re.compile(VERSION_PATTERN), f"{name}.version", line.version)
    if isinstance(line, RunRecord) and not (line.status.is_final and line.completed_at):
        raise InvalidError("the run has not ended")
    if isinstance(line, StepRecord) and line.status in (StepState.RUNNING, StepState.WAITING):
        raise InvalidError(f"a step of an ended run cannot be {line.status}")


def _match(pattern: re.Pattern[str], place: str, value: str) -> None:
    if not pattern.fullmatch(value):
        raise InvalidError(f"{place} is not such a text as Swarm writes")


def _check_moment(place: str, value: str) -> None:
    try:
        from_text(value)
    except ValueError:
        raise InvalidError(f"{place} is not a moment as Swarm writes it") from None
