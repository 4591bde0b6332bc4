"""What a package declares to depend on, checked so that only a registry can be reached. Pure.

Package code never runs at installation, so a declaration is the one thing by which a package could
make an installer fetch from elsewhere, read a local file or build something. Only names and
versions pass: no URLs, paths, options or links.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.source import Source
from swarm.kernel.errors import DefinitionError, Problem
from swarm.kernel.json import JsonObject, JsonValue
from swarm.packages.package import Contents, read_checked

REQUIREMENTS = "requirements.txt"
REQUIREMENTS_LOCK = "requirements.lock"
NODE_MANIFEST = "package.json"
NODE_LOCK = "package-lock.json"
MAX_DECLARATION_BYTES = 16 * 1024 * 1024
"""Largest file that declares dependencies."""

_HASH = re.compile(r"--hash=sha(256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})")
_NODE_NAME = r"(?:@[A-Za-z0-9._~-]+/)?[A-Za-z0-9._~-]+"
_NODE_RANGE = r"[A-Za-z0-9.*^~<>=|+ -]*"
_NODE_SPEC = re.compile(rf"(?:npm:{_NODE_NAME}(?:@{_NODE_RANGE})?|{_NODE_RANGE}|\${_NODE_NAME})")
_NODE_VERSION = re.compile(r"\d+\.\d+\.\d+[0-9A-Za-z.+-]*")
_NODE_GROUPS = (
    "dependencies",
    "optionalDependencies",
    "peerDependencies",
    "devDependencies",
)
_NODE_KEPT = ("name", "version", *_NODE_GROUPS, "peerDependenciesMeta", "overrides")
_INTEGRITY = re.compile(r"sha(?:256|384|512)-[A-Za-z0-9+/=]+(?: .*)?")


@dataclass(frozen=True, slots=True)
class PythonDependencies:
    """Requirements of a Python package, one to a line; ``locked``: exact versions with hashes."""

    text: str
    locked: bool


@dataclass(frozen=True, slots=True)
class NodeDependencies:
    """The parts of ``package.json`` and of its lock that an installer may see."""

    manifest: JsonObject
    lock: JsonObject | None


def read_dependencies(
    definition: AgentDefinition, contents: Contents, source: Source
) -> PythonDependencies | NodeDependencies | None:
    """What must be installed for a package, or None.

    Args:
        definition: the package's manifest.
        contents: its files.
        source: the manifest as written, for the places in messages; its folder (or archive) is
            taken to be the package's.

    Raises:
        DefinitionError: something declared that is not the name and version of a registry's
            package; every such line is in it.
    """
    origin = source.file.rpartition("/")[0]
    if definition.runtime.type == "python":
        return _read_python(definition, contents, source, origin)
    if definition.dependencies:
        remedy = (
            f"declare Node packages in `{NODE_MANIFEST}`"
            if definition.runtime.type == "node"
            else "list the programs that it needs in `runtime.requires`"
        )
        message = f"`dependencies` are Python packages, and this is a {definition.runtime.type}"
        raise DefinitionError([source.problem(("dependencies",), f"{message} agent", remedy)])
    if definition.runtime.type == "node" and _has(contents, NODE_MANIFEST):
        return _read_node(contents, origin)
    return None


def _read_python(
    definition: AgentDefinition, contents: Contents, source: Source, origin: str
) -> PythonDependencies | None:
    problems: list[Problem] = []
    declared: list[_Line] = []
    for index, text in enumerate(definition.dependencies):
        place = source.problem(("dependencies", index), "")
        if (line := _requirement(text, place, problems)) is not None:
            declared.append(line)
    if _has(contents, REQUIREMENTS):
        declared += _read_lines(contents, REQUIREMENTS, origin, problems)
    locked: list[_Line] = []
    if _has(contents, REQUIREMENTS_LOCK):
        locked = _read_lines(contents, REQUIREMENTS_LOCK, origin, problems)
        problems += _lock_problems(locked, declared, f"{origin}/{REQUIREMENTS_LOCK}")
    elif any(line.hashes for line in declared):
        problems += _lock_problems(declared, [], f"{origin}/{REQUIREMENTS}")
        locked = declared
    if problems:
        raise DefinitionError(problems)
    chosen = locked or declared
    if not chosen:
        return None
    return PythonDependencies("".join(f"{line.text}\n" for line in chosen), bool(locked))


@dataclass(frozen=True, slots=True)
class _Line:
    requirement: Requirement
    hashes: tuple[str, ...]
    place: Problem

    @property
    def text(self) -> str:
        return " ".join([str(self.requirement), *self.hashes])

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def applies(self) -> bool:
        """Whether its marker, if it has one, holds on this machine."""
        marker = self.requirement.marker
        return marker is None or marker.evaluate()

    @property
    def pinned_version(self) -> str | None:
        """The version of ``name==version``, None for anything looser."""
        specifiers = list(self.requirement.specifier)
        if len(specifiers) != 1 or specifiers[0].operator not in ("==", "==="):
            return None
        version = specifiers[0].version
        return None if version.endswith("*") else version


def _read_lines(contents: Contents, name: str, origin: str, problems: list[Problem]) -> list[_Line]:
    file = f"{origin}/{name}"
    text = _read_text(contents, name, file)
    lines: list[_Line] = []
    for number, content in _logical_lines(text):
        line = _requirement(content, Problem("", file, number), problems)
        if line is not None:
            lines.append(line)
    return lines


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines of a requirements file with comments removed and continuations joined, numbered."""
    start, joined = 1, ""
    for number, raw in enumerate(text.splitlines(), start=1):
        if not joined:
            start = number
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        joined += line
        if joined.strip():
            yield start, joined.strip()
        joined = ""
    if joined.strip():
        yield start, joined.strip()


def _requirement(text: str, place: Problem, problems: list[Problem]) -> _Line | None:
    """One requirement, or None with a problem noted at ``place``."""

    def fault(message: str, remedy: str) -> None:
        problems.append(Problem(message, place.file, place.line, place.column, remedy))

    wanted, *options = re.split(r"\s+(?=--)", text)
    if wanted.startswith("-") or not all(_HASH.fullmatch(option) for option in options):
        fault(
            f"`{text}`: options are not accepted among a package's dependencies",
            "write requirements such as `httpx>=0.27`; set indexes in your own uv or pip settings",
        )
        return None
    try:
        requirement = Requirement(wanted)
    except InvalidRequirement as error:
        said = str(error).splitlines()[0]
        fault(f"`{wanted}` is not a requirement: {said}", "write it such as `httpx>=0.27,<1`")
        return None
    if requirement.url is not None:
        fault(
            f"`{wanted}` is fetched from an address of its own, not from the registry",
            f"depend on a released version: `{requirement.name}>=...`",
        )
        return None
    return _Line(requirement, tuple(options), place)


def _lock_problems(locked: list[_Line], declared: list[_Line], file: str) -> list[Problem]:
    remedy = "lock again: `uv pip compile --generate-hashes`"
    problems = []
    pins = {line.name: line for line in locked if line.applies}
    for line in locked:
        if line.pinned_version is None or not line.hashes:
            message = f"`{line.requirement}` is locked without an exact version and hashes"
            problems.append(Problem(message, file, line.place.line, remedy=remedy))
    for line in declared:
        if not line.applies:
            continue
        pin = pins.get(line.name)
        if pin is None:
            problems.append(
                Problem(f"`{line.requirement}` is not in the lock", file, remedy=remedy)
            )
        elif pin.pinned_version is not None and not line.requirement.specifier.contains(
            pin.pinned_version, prereleases=True
        ):
            message = f"`{line.requirement}` is declared, `{pin.requirement}` locked"
            problems.append(Problem(message, file, pin.place.line, remedy=remedy))
    return problems


def _read_node(contents: Contents, origin: str) -> NodeDependencies | None:
    file = f"{origin}/{NODE_MANIFEST}"
    document = _read_json(contents, NODE_MANIFEST, file)
    if not any(document.get(group) for group in ("dependencies", "optionalDependencies")):
        return None
    problems: list[Problem] = []
    if document.get("workspaces"):
        problems.append(Problem("`workspaces` are not supported", file, remedy="remove them"))
    for group in (*_NODE_GROUPS, "overrides"):
        _check_node_group(group, document.get(group, {}), file, problems)
    if problems:
        raise DefinitionError(problems)
    manifest = {key: document[key] for key in _NODE_KEPT if key in document}
    lock = None
    if _has(contents, NODE_LOCK):
        lock_file = f"{origin}/{NODE_LOCK}"
        lock = clean_node_lock(_read_json(contents, NODE_LOCK, lock_file), lock_file)
    return NodeDependencies(manifest, lock)


def _check_node_group(group: str, value: JsonValue, file: str, problems: list[Problem]) -> None:
    if not isinstance(value, dict):
        problems.append(
            Problem(f"`{group}` is not an object", file, remedy="write `{name: range}`")
        )
        return
    for name, wanted in value.items():
        if group == "overrides" and isinstance(wanted, dict):
            _check_node_group(group, wanted, file, problems)
        elif not isinstance(wanted, str) or not _NODE_SPEC.fullmatch(wanted):
            problems.append(
                Problem(
                    f"`{group}`: `{name}: {wanted}` is not a version range of the registry",
                    file,
                    remedy="depend on a released version, such as `^7.0.0`",
                )
            )


def clean_node_lock(lock: JsonObject, file: str) -> JsonObject:
    """A lock of npm reduced to names, versions and hashes.

    Where each file was fetched from is dropped, so that npm asks the configured registry.

    Raises:
        DefinitionError: entries that are links, lie elsewhere, or have no hash.
    """
    packages = lock.get("packages")
    if lock.get("lockfileVersion") not in (2, 3) or not isinstance(packages, dict):
        problem = Problem(
            "it is not a lock of version 2 or 3", file, remedy="lock again with npm 7 or later"
        )
        raise DefinitionError([problem])
    cleaned: JsonObject = {}
    problems: list[Problem] = []
    for place, entry in packages.items():
        fault = None if place == "" else _node_entry_fault(place, entry)
        if fault is not None:
            remedy = "depend on released versions of the registry and lock again"
            problems.append(Problem(f"`{place}` {fault}", file, remedy=remedy))
        elif isinstance(entry, dict):
            cleaned[place] = {key: entry[key] for key in entry if key != "resolved"}
    if problems:
        raise DefinitionError(problems)
    kept: JsonObject = {key: lock[key] for key in ("name", "version", "requires") if key in lock}
    return {**kept, "lockfileVersion": 3, "packages": cleaned}


def _node_entry_fault(place: str, entry: JsonValue) -> str | None:
    names = place.split("/")
    if names[0] != "node_modules" or any(name in ("", ".", "..") for name in names):
        return "does not lie in node_modules"
    if not isinstance(entry, dict):
        return "is not an object"
    if entry.get("link"):
        return "is a link"
    if not _NODE_VERSION.fullmatch(str(entry.get("version", ""))):
        return "is not locked to a released version"
    if entry.get("inBundle"):
        return None
    if not _INTEGRITY.fullmatch(str(entry.get("integrity", ""))):
        return "has no hash (`integrity`)"
    return None


def _has(contents: Contents, path: str) -> bool:
    return any(file.path == path for file in contents.files)


def _read_text(contents: Contents, name: str, file: str) -> str:
    size = next(entry.size for entry in contents.files if entry.path == name)
    if size > MAX_DECLARATION_BYTES:
        message = f"it is larger than {MAX_DECLARATION_BYTES} bytes"
        raise DefinitionError([Problem(message, file, remedy="declare fewer dependencies")])
    try:
        return read_checked(contents, name).decode()
    except UnicodeDecodeError:
        problem = Problem("it is not UTF-8 text", file, remedy="save it with UTF-8 encoding")
        raise DefinitionError([problem]) from None


def _read_json(contents: Contents, name: str, file: str) -> JsonObject:
    text = _read_text(contents, name, file)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        problem = Problem(f"it is not JSON: {error}", file, line, remedy="mend the file")
        raise DefinitionError([problem]) from None
    if not isinstance(document, dict):
        raise DefinitionError([Problem("it is not a JSON object", file, remedy="mend the file")])
    return document
