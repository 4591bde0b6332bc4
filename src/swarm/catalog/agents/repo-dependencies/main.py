"""Read the dependencies that a repository's manifests declare, without running any of them."""

from __future__ import annotations

import configparser
import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import other_manifests as other
import python_manifests as python
from declared import Dependency, Found, LockFile, Partly
from display import clean, shown

LOCKFILES = Path(__file__).with_name("lockfiles.json")
MAX_DEPENDENCIES = 200
MAX_FILES = 50
MAX_PROBLEMS = 20
MAX_ENTRIES = 20_000
ANY_VERSION = frozenset({"", "*", "latest", "x", ">=0", ">= 0"})
UNREADABLE = (
    ValueError,
    SyntaxError,
    TypeError,
    RecursionError,
    MemoryError,
    configparser.Error,
    ElementTree.ParseError,
)

Json = dict[str, Any]
Reader = Callable[[str, str], Iterator[Found]]


class Format(NamedTuple):
    """A manifest's name (a shell pattern, lower case), its ecosystem, and who reads it."""

    pattern: str
    ecosystem: str
    read: Reader


FORMATS = (
    Format("pyproject.toml", "Python", python.read_pyproject),
    Format("*requirements*.txt", "Python", python.read_requirements),
    Format("setup.cfg", "Python", python.read_setup_cfg),
    Format("setup.py", "Python", python.read_setup_py),
    Format("pipfile", "Python", python.read_pipfile),
    Format("package.json", "Node", other.read_package_json),
    Format("cargo.toml", "Rust", other.read_cargo),
    Format("go.mod", "Go", other.read_go_mod),
    Format("gemfile", "Ruby", other.read_gemfile),
    Format("*.gemspec", "Ruby", other.read_gemspec),
    Format("pom.xml", "Java", other.read_pom),
    Format("build.gradle", "Java", other.read_gradle),
    Format("build.gradle.kts", "Java", other.read_gradle),
    Format("composer.json", "PHP", other.read_composer),
    Format("*.csproj", ".NET", other.read_project_file),
    Format("*.fsproj", ".NET", other.read_project_file),
)


class Gathered:
    """Adds up what the manifests declare."""

    def __init__(self) -> None:
        self.manifests: list[Json] = []
        self.problems: list[Json] = []
        self.lockfiles: list[Json] = []
        self.rows: list[Json] = []
        self.entries = 0
        self._seen: set[tuple[str, str, str]] = set()
        self.names: dict[tuple[str, str], bool] = {}
        self.scopes: dict[str, Counter[str]] = {}

    def read(self, document: Json, form: Format) -> None:
        """Read one manifest; a broken one is a problem, not a failure."""
        path = document["shown"]
        count = 0
        if self.entries >= MAX_ENTRIES:
            self._problem(path, f"not read: there are over {MAX_ENTRIES:,} entries before it")
            return
        try:
            for found in form.read(document["text"], document["path"]):
                if isinstance(found, LockFile):
                    self.lockfiles.append({"path": path, "ecosystem": form.ecosystem})
                    return
                if isinstance(found, Partly):
                    self._problem(path, found.reason)
                    continue
                if self.entries >= MAX_ENTRIES:
                    self._problem(path, f"only its first {count:,} entries were read")
                    break
                count += 1
                self.entries += 1
                self._add(found, form.ecosystem, path)
        except UNREADABLE as error:
            cut = "it is larger than what is read of a file; " if document["truncated"] else ""
            self._problem(path, f"{cut}{error or type(error).__name__}")
        self.manifests.append({"path": path, "ecosystem": form.ecosystem, "dependencies": count})

    def _problem(self, path: str, reason: str) -> None:
        self.problems.append({"path": path, "reason": clean(reason.replace("\n", " "))})

    def _add(self, found: Dependency, ecosystem: str, path: str) -> None:
        name, constraint = clean(found.name.strip(), 120), clean(found.constraint.strip(), 120)
        key = (ecosystem, normal_name(name, ecosystem))
        loose = constraint in ANY_VERSION
        self.names[key] = self.names.get(key, True) and loose
        if (*key, found.scope) in self._seen:
            return
        self._seen.add((*key, found.scope))
        self.scopes.setdefault(ecosystem, Counter())[found.scope] += 1
        self.rows.append(
            {
                "name": name,
                "constraint": constraint,
                "scope": found.scope,
                "ecosystem": ecosystem,
                "manifest": path,
            }
        )


def handler(inputs: Json) -> Json:
    """Go through the manifests, nearest the top first, then find lock files by their names."""
    gathered = Gathered()
    for document in rows(inputs["documents"]):
        form = format_of(document["path"])
        if document["role"] == "manifest" and form is not None:
            gathered.read(document, form)
    lock_names = json.loads(LOCKFILES.read_text("utf-8"))
    for row in rows(inputs["listing"]):
        ecosystem = lock_names.get(row["path"].rpartition("/")[2].lower())
        if ecosystem and row["kind"] in ("text", "binary") and not row.get("vendored"):
            path = shown(unquote_to_bytes(row["path"]))
            gathered.lockfiles.append({"path": path, "ecosystem": ecosystem})
    return {
        "total": len(gathered.names),
        "unconstrained": sum(gathered.names.values()),
        "ecosystems": ecosystems(gathered),
        "manifests": bounded(gathered.manifests, MAX_FILES),
        "dependencies": bounded(gathered.rows, MAX_DEPENDENCIES),
        "lockfiles": bounded(gathered.lockfiles, MAX_FILES),
        "problems": bounded(gathered.problems, MAX_PROBLEMS),
    }


def ecosystems(gathered: Gathered) -> list[Json]:
    manifests = Counter(row["ecosystem"] for row in gathered.manifests)
    names = Counter(ecosystem for ecosystem, _ in gathered.names)
    described = [
        {
            "name": name,
            "manifests": count,
            "dependencies": names[name],
            "scopes": dict(gathered.scopes.get(name, ())),
        }
        for name, count in manifests.items()
    ]
    return sorted(described, key=lambda row: (-names[str(row["name"])], str(row["name"])))


def format_of(path: str) -> Format | None:
    """Who reads the manifest at ``path`` (percent-encoded), if anyone does."""
    name = path.rpartition("/")[2].lower()
    return next((form for form in FORMATS if fnmatch(name, form.pattern)), None)


def normal_name(name: str, ecosystem: str) -> str:
    """The name by which an ecosystem tells packages apart; for Python that of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower() if ecosystem == "Python" else name


def rows(path: str) -> Iterator[Json]:
    """The objects of a JSON Lines file."""
    with open(path, encoding="ascii") as lines:
        for line in lines:
            yield json.loads(line)


def bounded(items: list[Json], most: int) -> Json:
    """A list that cannot grow without limit, with how long it really is."""
    return {"items": items[:most], "total": len(items), "truncated": len(items) > most}
