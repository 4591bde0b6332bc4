"""Workflows written from instances of scientific workflows, their work scaled down.

Each task becomes a step that calls the catalog's ``stand-in``: it checks what the steps before it
gave, computes in proportion to the task's recorded time, and gives data in proportion to the files
that the task wrote. The proportions are those of the instance; the longest time and the largest
output are chosen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from swarm.definitions.rules import RESERVED_WORDS
from swarm.definitions.wfformat import Instance, InstanceTask, parse_instance
from swarm.expressions.scanner import escape
from swarm.kernel.errors import InvalidError, NotFoundError
from swarm.kernel.settings import MIB, Settings
from swarm.packages.places import Kind, absolute, kind_of, unreadable
from swarm.packages.scaffold import WORKFLOW_FILE, make_folder

AGENT = "stand-in"
"""What the steps call."""
ROUNDS_PER_SECOND = 5_000_000
"""Iterations of PBKDF2-HMAC-SHA256 that one core does; 5.1 million were measured (OpenSSL 3, with
the processor's SHA instructions). It is fixed, so that one instance gives one workflow."""

_ITEM_BYTES = 96
"""Of what a step gives, in JSON, besides its data: ``{"data":"…","digest":"…64 digits…"},``."""
_OWN_BYTES = 8_192
"""For a step's other inputs, in JSON."""
_LONGEST_ID = 64
_KEPT = 31
"""Characters at each end of a longer name."""
_LONGEST_DESCRIPTION = 500
_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_PLAIN = re.compile(r"[ !#-\[\]-~]*")
"""What stands in double quotes as it is, in YAML."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the largest is to be; all else follows in proportion."""

    longest_ms: float
    """For the task that took longest."""
    largest_bytes: int
    """For the task that wrote most. It is less where a step would receive too much otherwise."""


@dataclass(frozen=True, slots=True)
class ImportedInstance:
    """The workflow that was written."""

    name: str
    folder: Path
    steps: int
    dependencies: int
    work_seconds: float
    """What all steps compute, about, one after the other."""
    data_bytes: int
    """What all steps give."""


def import_instance(
    file: Path, into: Path, scale: Scale, settings: Settings, name: str | None = None
) -> ImportedInstance:
    """Write the workflow ``into/<name>`` from an instance of WfFormat.

    Args:
        name: the workflow's; the instance's, as far as a workflow may be called that, when None.

    Raises:
        NotFoundError: there is no such file; UnavailableError: it cannot be read, or the folder
        not be written; DefinitionError: it is no instance that can be used; InvalidError: the
        workflow would exceed a limit; ConflictError: the folder is there already.
    """
    instance = parse_instance(_read(file, settings), str(file), settings.max_steps)
    name = workflow_name(instance.name) if name is None else name
    rounds = _rounds(instance, scale)
    sizes = _sizes(instance, scale, settings, str(file))
    lines: list[str] = []
    left = settings.max_workflow_mb * MIB
    for line in _workflow_lines(instance, name, rounds, sizes):
        lines.append(f"{line}\n")
        left -= len(lines[-1].encode())
        if left < 0:
            raise InvalidError(
                f"the workflow would be larger than {settings.max_workflow_mb} MiB",
                where=str(file),
                remedy="import a smaller instance, or raise the setting max_workflow_mb",
            )

    def fill(folder: Path) -> None:
        (folder / WORKFLOW_FILE).write_text("".join(lines), "utf-8")

    return ImportedInstance(
        name,
        make_folder("workflow", name, into, fill),
        len(instance.tasks),
        sum(len(task.parents) for task in instance.tasks),
        sum(rounds.values()) / ROUNDS_PER_SECOND,
        sum(sizes.values()),
    )


def workflow_name(name: str) -> str:
    """The nearest that a workflow can be called to the ``name`` of an instance."""
    plain = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")
    return plain[:64].strip("-._") or "instance"


def step_ids(names: Sequence[str]) -> dict[str, str]:
    """An identifier for each of ``names``, which differ; one that is an identifier stays as it is.

    Others have ``_`` for each character that an identifier lacks. Of one that is too long the
    begin and the end are kept, as names that differ mostly differ in one of these. Where that would
    make two alike, they get numbers.
    """
    ids = {name: name for name in names if _is_step_id(name)}
    taken = set(ids)
    numbers: dict[str, int] = {}
    for name in names:
        if name in ids:
            continue
        base = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if len(base) > _LONGEST_ID:
            base = f"{base[:_KEPT]}__{base[-_KEPT:]}"
        if not base or base[0].isdigit() or base in RESERVED_WORDS:
            base = f"t_{base}"[:_LONGEST_ID]
        made = base
        while made in taken:
            numbers[base] = numbers.get(base, 1) + 1
            suffix = f"_{numbers[base]}"
            made = base[: _LONGEST_ID - len(suffix)] + suffix
        taken.add(made)
        ids[name] = made
    return ids


def _is_step_id(name: str) -> bool:
    is_identifier = name.isascii() and name.isidentifier()
    return is_identifier and len(name) <= _LONGEST_ID and name not in RESERVED_WORDS


def _read(file: Path, settings: Settings) -> bytes:
    path = absolute(file)
    if kind_of(path) is not Kind.FILE:
        raise NotFoundError(
            "there is no such file", where=str(file), remedy="give the JSON file of an instance"
        )
    most = settings.max_instance_mb * MIB
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(data) > most:
        raise InvalidError(
            f"the file is larger than {settings.max_instance_mb} MiB",
            where=str(file),
            remedy="raise the setting max_instance_mb, if you trust the file",
        )
    return data


def _rounds(instance: Instance, scale: Scale) -> dict[str, int]:
    longest = max(task.seconds for task in instance.tasks)
    most = scale.longest_ms / 1000 * ROUNDS_PER_SECOND
    share = most / longest if longest else 0.0
    return {task.id: max(1, round(task.seconds * share)) for task in instance.tasks}


def _sizes(instance: Instance, scale: Scale, settings: Settings, file: str) -> dict[str, int]:
    """Characters that each task gives: the largest as chosen, or what the widest join can take."""
    written = {task.id: task.output_bytes for task in instance.tasks}
    largest = max(written.values())
    share = scale.largest_bytes / largest if largest else 0.0
    for task in instance.tasks:
        room = settings.max_input_bytes - _OWN_BYTES - _ITEM_BYTES * len(task.parents)
        if task.parents and room < 0:
            raise InvalidError(
                f"the task `{task.id}` waits for {len(task.parents)} tasks, whose results are"
                f" more than the {settings.max_input_bytes} bytes that a step may be given",
                where=file,
                remedy="raise the setting max_input_bytes",
            )
        received = sum(written[parent] for parent in task.parents)
        if received:
            share = min(share, room / received)
    return {task: int(size * share) for task, size in written.items()}


def _workflow_lines(
    instance: Instance, name: str, rounds: Mapping[str, int], sizes: Mapping[str, int]
) -> Iterator[str]:
    ids = step_ids([task.id for task in instance.tasks])
    waited_for = {parent for task in instance.tasks for parent in task.parents}
    last = [task.id for task in instance.tasks if task.id not in waited_for]
    described = f"Imported from the WfFormat instance {instance.name}. {instance.description}"
    yield f"name: {_quoted(name)}"
    yield "version: 1.0.0"
    yield f"description: {_quoted(described.strip()[:_LONGEST_DESCRIPTION])}"
    yield "tags: [wfcommons]"
    yield ""
    yield "outputs:"
    yield "  digests:"
    for task_id in last:
        yield f"    {_written(ids[task_id])}: ${{steps.{ids[task_id]}.outputs.digest}}"
    yield ""
    yield "steps:"
    for task in instance.tasks:
        yield from _step_lines(task, ids, rounds[task.id], sizes[task.id])


def _step_lines(
    task: InstanceTask, ids: Mapping[str, str], rounds: int, size: int
) -> Iterator[str]:
    yield f"  - id: {_written(ids[task.id])}"
    yield f"    name: {_quoted(task.id)}"
    yield f"    agent: {AGENT}"
    yield "    inputs:"
    yield f"      task: {_quoted(escape(task.id))}"
    yield f"      rounds: {rounds}"
    yield f"      size: {size}"
    if task.parents:
        yield "      received:"
        for parent in task.parents:
            yield f"        - ${{steps.{ids[parent]}.outputs}}"


def _written(identifier: str) -> str:
    """An identifier as a YAML scalar, in quotes only where a reader could take it for no text."""
    return f'"{identifier}"' if identifier.lower() in _YAML_WORDS else identifier


def _quoted(text: str) -> str:
    """``text`` as a YAML scalar that every reader takes for this very text."""
    if _PLAIN.fullmatch(text):
        return f'"{text}"'
    if not text.isascii() or not text.isprintable():
        written: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=2**31)
        return written.rstrip("\n")
    return json.dumps(text)
