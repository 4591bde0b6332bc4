"""A package's manifest, read from its contents and checked against its other files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.faults import shown_location
from swarm.definitions.loading import parse_agent
from swarm.definitions.source import MAX_SOURCE_BYTES, Location, Source, read_yaml
from swarm.kernel.errors import DefinitionError, InvalidError, Problem
from swarm.kernel.settings import Settings
from swarm.packages.dependencies import read_dependencies
from swarm.packages.entry import EntryFault, check_entry
from swarm.packages.package import MANIFEST, Contents, read_checked
from swarm.sandbox.egress.policy import HostPattern


def read_manifest(contents: Contents, origin: str, settings: Settings) -> AgentDefinition:
    """Read ``agent.yaml`` and check that what it starts is there and what it asks for is allowed.

    Args:
        contents: the package's files.
        origin: the folder or archive, for messages.
        settings: the limits that the manifest must keep.

    Raises:
        DefinitionError: the manifest is missing or malformed, or its entry is not there; with the
            line of the manifest (or of the entry's file) and a remedy.
    """
    file = f"{origin}/{MANIFEST}"
    text = _manifest_text(contents, file)
    definition = parse_agent(text, file)
    source = read_yaml(text, file)
    problems = _entry_problems(check_entry(definition, contents, settings), origin, source)
    problems += _limit_problems(definition, source, settings)
    problems += host_problems(definition.permissions.network, ("permissions", "network"), source)
    version = definition.runtime.version
    if version is not None and not re.fullmatch(r"\d{1,4}(\.\d{1,4}){0,2}", version):
        message = f"`{version}` is not an interpreter's version"
        problems.append(source.problem(("runtime", "version"), message, "write it such as `3.11`"))
    try:
        read_dependencies(definition, contents, source)
    except DefinitionError as error:
        problems += error.problems
    if problems:
        raise DefinitionError(problems)
    return definition


def host_problems(hosts: Sequence[str], location: Location, source: Source) -> Iterator[Problem]:
    """The entries of a list of hosts that are none."""
    for index, host in enumerate(hosts):
        try:
            HostPattern.parse(host)
        except InvalidError as error:
            yield source.problem((*location, index), error.message, error.remedy)


def time_limit_problem(
    seconds: float | None, location: Location, source: Source, settings: Settings
) -> list[Problem]:
    """Whether a manifest asks for more time than the settings give."""
    most = settings.max_timeout_seconds
    if seconds is None or seconds <= most:
        return []
    message = f"{shown_location(location)} asks for {seconds:g} s; at most {most:g} are given"
    remedy = "ask for less, or raise the setting max_timeout_seconds"
    return [source.problem(location, message, remedy)]


def _limit_problems(
    definition: AgentDefinition, source: Source, settings: Settings
) -> Iterator[Problem]:
    runtime, most = definition.runtime, settings.max_memory_mb
    if runtime.memory_mb > most:
        yield source.problem(
            ("runtime", "memory_mb"),
            f"runtime.memory_mb asks for {runtime.memory_mb} MiB; at most {most} are given",
            "ask for less, or raise the setting max_memory_mb",
        )
    place = ("runtime", "timeout_seconds")
    yield from time_limit_problem(runtime.timeout_seconds, place, source, settings)


def _entry_problems(fault: EntryFault | None, origin: str, source: Source) -> list[Problem]:
    if fault is None:
        return []
    if fault.file is not None:
        place = f"{origin}/{fault.file}"
        return [Problem(fault.message, place, fault.line, remedy=fault.remedy)]
    runtime = source.data.get("runtime")
    nested = isinstance(runtime, dict) and "entry" in runtime
    location = ("runtime", "entry") if nested else ("entrypoint",)
    return [source.problem(location, fault.message, fault.remedy)]


def _manifest_text(contents: Contents, file: str) -> str:
    sizes = {entry.path: entry.size for entry in contents.files}
    if MANIFEST not in sizes:
        raise DefinitionError([_missing(sizes, file)])
    if sizes[MANIFEST] > MAX_SOURCE_BYTES:
        message = f"the manifest has {sizes[MANIFEST]} bytes; at most {MAX_SOURCE_BYTES} are read"
        raise DefinitionError([Problem(message, file, remedy="keep data in files of their own")])
    data = read_checked(contents, MANIFEST)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(
            "the manifest is not UTF-8 text", file, line, remedy="save it with UTF-8 encoding"
        )
        raise DefinitionError([problem]) from None


def _missing(paths: dict[str, int], file: str) -> Problem:
    misplaced = sorted(path for path in paths if path.endswith(f"/{MANIFEST}"))
    misnamed = sorted(path for path in paths if path.lower() in ("agent.yml", "agent.yaml"))
    remedy = "create one: `swarm agent new` writes a package to start from"
    if misnamed:
        remedy = f"rename `{misnamed[0]}` to `{MANIFEST}`"
    elif misplaced:
        remedy = f"the manifest lies at the top: use the folder `{misplaced[0].rpartition('/')[0]}`"
    return Problem(f"the package has no {MANIFEST}", file, remedy=remedy)
