"""A package's manifest, read from its contents and checked against its other files."""

from __future__ import annotations

import re

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.loading import parse_agent
from swarm.definitions.source import MAX_SOURCE_BYTES, Source, read_yaml
from swarm.kernel.errors import DefinitionError, Problem
from swarm.packages.dependencies import read_dependencies
from swarm.packages.entry import check_entry
from swarm.packages.package import MANIFEST, Contents, read_checked


def read_manifest(contents: Contents, origin: str) -> AgentDefinition:
    """Read ``agent.yaml`` and check that what it starts is there.

    Args:
        contents: the package's files.
        origin: the folder or archive, for messages.

    Raises:
        DefinitionError: the manifest is missing or malformed, or its entry is not there; with the
            line of the manifest (or of the entry's file) and a remedy.
    """
    file = f"{origin}/{MANIFEST}"
    text = _manifest_text(contents, file)
    definition = parse_agent(text, file)
    source = read_yaml(text, file)
    problems = _entry_problems(definition, contents, origin, source)
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


def _entry_problems(
    definition: AgentDefinition, contents: Contents, origin: str, source: Source
) -> list[Problem]:
    fault = check_entry(definition, contents)
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
