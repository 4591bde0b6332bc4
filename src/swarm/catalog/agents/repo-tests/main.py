"""Find out how a repository is tested: which files are tests, with which frameworks, in which CI.

What counts as a test stands in ``rules.json``: folders and file names say what is a test; imports
in those files, configuration files and manifests say which framework it is for.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from fnmatch import translate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from display import shown
from repository import Reader, open_repository

RULES = Path(__file__).with_name("rules.json")
READ_BYTES = 64 * 1024
MAX_READ_PER_LANGUAGE = 1_000
MAX_ITEMS = 30

Json = dict[str, Any]


class Framework(NamedTuple):
    """One test framework and what gives it away. ``inline``: its tests lie in the source files."""

    name: str
    languages: frozenset[str]
    files: re.Pattern[str] | None
    content: re.Pattern[bytes] | None
    manifest: re.Pattern[str] | None
    packages: frozenset[str]
    inline: bool


class Rules:
    """The tables of ``rules.json``, ready to match."""

    def __init__(self) -> None:
        tables = json.loads(RULES.read_text("utf-8"))
        self.folders = frozenset(tables["test_folders"])
        self.names = any_of(tables["test_names"])
        self.ci = [(row["name"], any_of(row["paths"])) for row in tables["ci"]]
        self.frameworks = [
            Framework(
                row["name"],
                frozenset(row["languages"]),
                any_of(row["files"]) if "files" in row else None,
                re.compile(row["content"].encode(), re.M) if "content" in row else None,
                re.compile(row["manifest"], re.M) if "manifest" in row else None,
                frozenset(row.get("package", ())),
                row.get("inline", False),
            )
            for row in tables["frameworks"]
        ]

    def is_test(self, path: str) -> bool:
        """Whether a code file's path says that it is a test."""
        *folders, name = path.lower().split("/")
        return not self.folders.isdisjoint(folders) or self.names.match(name) is not None


class Evidence:
    """Frameworks and CI systems found so far; the first evidence of each is kept."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.frameworks: dict[str, str] = {}
        self.ci: dict[str, str] = {}
        self._read: Counter[str] = Counter()

    def from_name(self, path: str, display: str) -> None:
        """What a file's mere presence tells."""
        for name, paths in self._rules.ci:
            # `*` must not cross a slash: a workflow lies right in its folder.
            if paths.match(path) and path.count("/") <= 2:
                self.ci.setdefault(name, display)
        base = path.rpartition("/")[2].lower()
        for framework in self._rules.frameworks:
            if framework.files is not None and framework.files.match(base):
                self.frameworks.setdefault(framework.name, display)

    def wants(self, language: str, is_test: bool) -> bool:
        """Whether reading one more file of this sort can tell anything new."""
        open_questions = any(
            language in framework.languages
            and framework.name not in self.frameworks
            and framework.content is not None
            and (is_test or framework.inline)
            for framework in self._rules.frameworks
        )
        return open_questions and self._read[language] < MAX_READ_PER_LANGUAGE

    def from_content(self, language: str, is_test: bool, data: bytes, display: str) -> None:
        """What a file imports tells."""
        self._read[language] += 1
        for framework in self._rules.frameworks:
            applies = language in framework.languages and (is_test or framework.inline)
            if applies and framework.content is not None and framework.content.search(data):
                self.frameworks.setdefault(framework.name, display)

    def from_manifest(self, name: str, text: str, display: str) -> None:
        """What a manifest declares tells."""
        packages = declared_packages(text) if name == "package.json" else frozenset[str]()
        for framework in self._rules.frameworks:
            in_text = framework.manifest is not None and framework.manifest.search(text)
            if in_text or framework.packages & packages:
                self.frameworks.setdefault(framework.name, display)


def handler(inputs: Json) -> Json:
    """Go through the listing once, reading only the test files that can still tell something."""
    rules = Rules()
    evidence = Evidence(rules)
    tests: dict[str, Counter[str]] = {}
    sums: Counter[str] = Counter()
    reader = Reader(open_repository(inputs["path"]))
    try:
        for row in rows(inputs["listing"]):
            raw = unquote_to_bytes(row["path"])
            path = raw.decode("utf-8", "replace")
            evidence.from_name(path, shown(raw))
            if row.get("type") != "programming" or row.get("generated"):
                continue
            is_test = rules.is_test(path)
            role = "test" if is_test else "source"
            sums[f"{role}_files"] += 1
            sums[f"{role}_lines"] += row["lines"]
            if is_test:
                counts = tests.setdefault(row["language"], Counter())
                counts.update(files=1, lines=row["lines"])
            if evidence.wants(row["language"], is_test):
                content = reader.read(raw, row.get("object", ""), READ_BYTES)
                data = content.data if content else b""
                evidence.from_content(row["language"], is_test, data, shown(raw))
    finally:
        reader.close()
    for row in rows(inputs["documents"]):
        name = row["path"].rpartition("/")[2].lower()
        evidence.from_manifest(name, row["text"], row["shown"])
    return describe(sums, tests, evidence)


def describe(sums: Counter[str], tests: dict[str, Counter[str]], evidence: Evidence) -> Json:
    """The outputs."""
    by_language: list[Json] = [{"name": name, **counts} for name, counts in tests.items()]
    by_language.sort(key=lambda row: (-row["files"], row["name"]))
    source_lines = sums["source_lines"]
    return {
        "test_files": sums["test_files"],
        "test_lines": sums["test_lines"],
        "source_files": sums["source_files"],
        "source_lines": source_lines,
        "ratio": round(sums["test_lines"] / source_lines, 3) if source_lines else 0.0,
        "frameworks": listed(evidence.frameworks),
        "ci": listed(evidence.ci),
        "languages": bounded(by_language),
    }


def rows(path: str) -> Iterator[Json]:
    """The objects of a JSON Lines file, vendored ones left out."""
    with open(path, encoding="ascii") as lines:
        for line in lines:
            row = json.loads(line)
            if not row.get("vendored"):
                yield row


def declared_packages(text: str) -> frozenset[str]:
    """The names that a ``package.json`` depends on, in whatever way."""
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError):
        return frozenset()
    if not isinstance(manifest, dict):
        return frozenset()
    tables = (manifest.get(key) for key in ("dependencies", "devDependencies", "peerDependencies"))
    return frozenset(name for table in tables if isinstance(table, dict) for name in table)


def any_of(names: list[str]) -> re.Pattern[str]:
    """One pattern for several shell patterns."""
    return re.compile("|".join(translate(name) for name in names))


def listed(found: dict[str, str]) -> Json:
    return bounded([{"name": name, "evidence": path} for name, path in sorted(found.items())])


def bounded(items: list[Json]) -> Json:
    """A list that cannot grow without limit, with how long it really is."""
    return {
        "items": items[:MAX_ITEMS],
        "total": len(items),
        "truncated": len(items) > MAX_ITEMS,
    }
