"""Which language a file is in, and whether it is the project's own; the tables are JSON files."""

from __future__ import annotations

import json
import re
from fnmatch import translate
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
VERSION = re.compile(r"[\d.]+$")
OTHER = "Other"


class Language(NamedTuple):
    """A row of ``languages.json``; ``type`` is programming, markup, data or prose."""

    name: str
    type: str


class Languages:
    """Finds a file's language by its name, else by its extension, else by its first line."""

    def __init__(self) -> None:
        self.by_name: dict[str, Language] = {OTHER: Language(OTHER, "data")}
        self._filenames: dict[bytes, Language] = {}
        self._extensions: dict[bytes, Language] = {}
        self._interpreters: dict[str, Language] = {}
        for row in json.loads((HERE / "languages.json").read_text("utf-8")):
            language = Language(row["name"], row["type"])
            self.by_name[language.name] = language
            for name in row.get("filenames", ()):
                self._filenames[name.encode()] = language
            for extension in row.get("extensions", ()):
                self._extensions[extension.encode()] = language
            for interpreter in row.get("interpreters", ()):
                self._interpreters[interpreter] = language

    def of(self, path: bytes, head: bytes) -> Language:
        """The language of the text at ``path`` whose first bytes are ``head``."""
        name = path.rpartition(b"/")[2]
        _, dot, extension = name.rpartition(b".")
        found = self._filenames.get(name)
        if found is None and dot:
            found = self._extensions.get(extension.lower())
        if found is None and head.startswith(b"#!"):
            found = self._by_first_line(head)
        if found is None:
            # Dockerfile.dev, Makefile.linux
            found = self._filenames.get(name.partition(b".")[0])
        return found or self.by_name[OTHER]

    def _by_first_line(self, head: bytes) -> Language | None:
        line = head[:200].partition(b"\n")[0]
        words = [word.decode("latin-1") for word in line[2:].split()]
        programs = (word.rpartition("/")[2] for word in words)
        # `env -S VAR=1 python3 -u`: skip env itself, its options and its assignments.
        program = next(
            (p for p in programs if p not in ("env", "") and p[0] != "-" and "=" not in p), ""
        )
        return self._interpreters.get(program) or self._interpreters.get(VERSION.sub("", program))


class Roles:
    """What a path says of a file: vendored, generated, a document worth reading."""

    def __init__(self) -> None:
        rules = json.loads((HERE / "roles.json").read_text("utf-8"))
        self._vendored = frozenset(name.encode() for name in rules["vendored_folders"])
        self._generated = frozenset(name.lower().encode() for name in rules["generated_names"])
        self._suffixes = tuple(suffix.encode() for suffix in rules["generated_suffixes"])
        folders = rules["documents"].pop("licence_folders")
        self._licence_folders = frozenset(name.encode() for name in folders)
        self._documents = {role: _pattern(names) for role, names in rules["documents"].items()}
        self._documentation = {
            role: _pattern(names) for role, names in rules["documentation"].items()
        }

    def is_vendored(self, path: bytes) -> bool:
        """Whether somebody else's code lies there, by a folder's name."""
        return not self._vendored.isdisjoint(path.lower().split(b"/")[:-1])

    def is_generated(self, path: bytes) -> bool:
        """Whether a program wrote the file, by its name."""
        name = path.rpartition(b"/")[2].lower()
        return name in self._generated or name.endswith(self._suffixes)

    def document(self, path: bytes) -> str | None:
        """Which kind of document this is whose text later steps want to read, if any."""
        folder, _, name = path.lower().rpartition(b"/")
        if folder.rpartition(b"/")[2] in self._licence_folders:
            return "licence"
        text = name.decode("latin-1")
        return next((role for role, rule in self._documents.items() if rule.match(text)), None)

    def documentation(self, path: bytes) -> str | None:
        """Which customary text this is (readme, changelog, ...): at the top, in docs or .github."""
        folder, _, name = path.lower().rpartition(b"/")
        if folder not in (b"", b"docs", b"doc", b".github"):
            return None
        text = name.decode("latin-1")
        return next((role for role, rule in self._documentation.items() if rule.match(text)), None)


def _pattern(names: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(name) for name in names))
