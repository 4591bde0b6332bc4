"""List a repository's files, recognise their languages and count their lines.

One pass reads every file once. What later steps need of it goes into two files, as JSON Lines:
``files.jsonl`` has one object per tracked thing, ``documents.jsonl`` the text of licences and
manifests. Paths stand in them percent-encoded (``path``), because a path is bytes; ``shown`` is
added when the text for people differs.
"""

from __future__ import annotations

import heapq
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote_from_bytes

from counting import count_lines, narrow, says_generated
from display import shown
from languages import OTHER, Language, Languages, Roles
from repository import Entry, Reader, Repository, open_repository
from tracked import entries, listable

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_LANGUAGES = 60
MAX_LARGEST = 10
MAX_SUBMODULES = 50
MAX_DOCUMENTS = 400
MAX_DOCUMENT_BYTES = 256 * 1024
MAX_DOCUMENTS_BYTES = 16 * 1024 * 1024
PROGRESS_STEP = 2_000
HEAD_BYTES = 256
TOTALS = (
    *("files", "text_files", "binary_files", "oversized_files", "missing_files", "symlinks"),
    *("submodules", "lines", "blank_lines", "bytes", "vendored_files", "vendored_lines"),
    *("generated_files", "generated_lines"),
)

Json = dict[str, Any]


def handler(inputs: Json, context: Any) -> Json:
    """Survey the repository at ``path``.

    Raises:
        RepositoryError: ``path`` is not a git repository.
    """
    repository = listable(open_repository(inputs["path"]))
    reader = Reader(repository)
    survey = Survey(reader)
    outputs = Path(os.environ["SWARM_OUTPUTS"])
    try:
        with (outputs / "files.jsonl").open("w", encoding="ascii") as listing:
            for number, entry in enumerate(entries(repository), 1):
                write_line(listing, survey.add(entry))
                if number % PROGRESS_STEP == 0:
                    context.progress(None, f"{number:,} files")
        with (outputs / "documents.jsonl").open("w", encoding="ascii") as documents:
            for document in survey.documents():
                write_line(documents, document)
    finally:
        reader.close()
    return {
        **survey.summary(),
        "source": repository.source,
        "notes": notes(repository, survey),
        "listing": context.files.output("files.jsonl", media_type="application/jsonl"),
        "documents": context.files.output("documents.jsonl", media_type="application/jsonl"),
    }


class Survey:
    """Adds up what the entries are, one after the other."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._languages = Languages()
        self._roles = Roles()
        self.totals = Counter(dict.fromkeys(TOTALS, 0))
        self._by_language: dict[str, Counter[str]] = {}
        self._largest: list[tuple[int, bytes]] = []
        self._submodules: list[bytes] = []
        self._documentation: dict[str, tuple[int, Json]] = {}
        self._wanted: list[tuple[int, bytes, str, str]] = []
        self.documents_left_out = 0

    def add(self, entry: Entry) -> Json:
        """Count one entry and describe it for the listing."""
        row: Json = {"path": quote_from_bytes(entry.path), "kind": entry.kind}
        text = shown(entry.path)
        if text != row["path"]:
            row["shown"] = text
        if entry.kind == "symlink":
            self.totals["symlinks"] += 1
        elif entry.kind == "submodule":
            self.totals["submodules"] += 1
            self._submodules.append(entry.path)
        else:
            self._add_file(entry, row)
        if entry.object_id and self._reader.repository.source == "git-tree":
            row["object"] = entry.object_id
        return row

    def _add_file(self, entry: Entry, row: Json) -> None:
        content = self._reader.read(entry.path, entry.object_id, MAX_FILE_BYTES)
        if content is None:
            row["kind"] = "missing"
            self.totals["missing_files"] += 1
            return
        self.totals["files"] += 1
        self.totals["bytes"] += content.size
        row["bytes"] = content.size
        self._note_size(entry.path, content.size)
        vendored = self._roles.is_vendored(entry.path)
        if vendored:
            row["vendored"] = True
            self.totals["vendored_files"] += 1
        if content.size > MAX_FILE_BYTES:
            row["kind"] = "oversized"
            self.totals["oversized_files"] += 1
            return
        text = narrow(content.data)
        if text is None:
            row["kind"] = "binary"
            self.totals["binary_files"] += 1
            return
        self._add_text(entry, row, text, vendored)

    def _add_text(self, entry: Entry, row: Json, text: bytes, vendored: bool) -> None:
        lines = count_lines(text)
        language = self._languages.of(entry.path, text[:HEAD_BYTES])
        generated = not vendored and (self._roles.is_generated(entry.path) or says_generated(text))
        row |= {"kind": "text", "language": language.name, "lines": lines.total}
        row["type"] = language.type
        self.totals["text_files"] += 1
        self.totals["lines"] += lines.total
        self.totals["blank_lines"] += lines.blank
        if vendored:
            self.totals["vendored_lines"] += lines.total
            return
        self._note_documents(entry, lines.total, language)
        if generated:
            row["generated"] = True
            self.totals["generated_files"] += 1
            self.totals["generated_lines"] += lines.total
            return
        counts = self._by_language.setdefault(language.name, Counter())
        counts["files"] += 1
        counts["lines"] += lines.total
        counts["blank_lines"] += lines.blank
        counts["bytes"] += row["bytes"]

    def _note_size(self, path: bytes, size: int) -> None:
        heapq.heappush(self._largest, (size, path))
        if len(self._largest) > MAX_LARGEST:
            heapq.heappop(self._largest)

    def _note_documents(self, entry: Entry, lines: int, language: Language) -> None:
        role = self._roles.document(entry.path)
        depth = entry.path.count(b"/")
        # licenser.py and licences.json are about licences, not licences.
        is_code = role == "licence" and language.type != "prose" and language.name != OTHER
        if role is not None and not is_code:
            self._wanted.append((depth, entry.path, entry.object_id, role))
        customary = self._roles.documentation(entry.path)
        if customary is not None:
            known = self._documentation.get(customary)
            if known is None or depth < known[0]:
                described = {"path": shown(entry.path), "lines": lines}
                self._documentation[customary] = (depth, described)

    def documents(self) -> Iterator[Json]:
        """The licences and manifests, those nearest the top first, within the limits."""
        left = MAX_DOCUMENTS_BYTES
        for number, (_, path, object_id, role) in enumerate(sorted(self._wanted)):
            content = self._reader.read(path, object_id, MAX_DOCUMENT_BYTES)
            if number >= MAX_DOCUMENTS or content is None or len(content.data) > left:
                self.documents_left_out += 1
                continue
            left -= len(content.data)
            text = narrow(content.data)
            yield {
                "path": quote_from_bytes(path),
                "shown": shown(path),
                "role": role,
                "text": (text or b"").decode("utf-8-sig", "replace"),
                "truncated": content.size > len(content.data),
            }

    def summary(self) -> Json:
        """The outputs that are numbers and short lists."""
        own = sum(counts["lines"] for counts in self._by_language.values())
        rows = [
            describe(self._languages.by_name[name], counts, own)
            for name, counts in self._by_language.items()
        ]
        rows.sort(key=lambda row: (-row["lines"], -row["files"], row["name"]))
        largest = [
            {"path": shown(path), "bytes": size}
            for size, path in sorted(self._largest, key=lambda item: (-item[0], item[1]))
        ]
        return {
            "totals": dict(self.totals),
            "languages": bounded(rows, MAX_LANGUAGES),
            "largest_files": largest,
            "submodules": bounded([shown(path) for path in self._submodules], MAX_SUBMODULES),
            "documentation": {role: found for role, (_, found) in self._documentation.items()},
        }


def describe(language: Language, counts: Counter[str], own_lines: int) -> Json:
    """A row of ``languages``; ``share`` is its part of the project's own lines, 0 to 1."""
    share = counts["lines"] / own_lines if own_lines else 0.0
    return {
        "name": language.name,
        "type": language.type,
        "files": counts["files"],
        "lines": counts["lines"],
        "blank_lines": counts["blank_lines"],
        "bytes": counts["bytes"],
        "share": round(share, 6),
    }


def bounded(items: list[Any], most: int) -> Json:
    """A list that cannot grow without limit, with how long it really is."""
    return {"items": items[:most], "total": len(items), "truncated": len(items) > most}


def notes(repository: Repository, survey: Survey) -> list[str]:
    """What a reader must know to read the figures rightly."""
    found = []
    if repository.source == "folder":
        found.append(
            f"Git's own data could not be read: {repository.problem}. The files in the folder "
            "were counted, without the usual caches and installed packages."
        )
    if repository.source == "git-tree":
        found.append("A bare repository: the files are those of its HEAD commit.")
    if survey.totals["oversized_files"]:
        found.append(
            f"{survey.totals['oversized_files']} files over {MAX_FILE_BYTES >> 20} MiB "
            "were not read; they count as files and bytes, not as lines."
        )
    if survey.totals["missing_files"]:
        found.append(f"{survey.totals['missing_files']} tracked files are not in the working tree.")
    if survey.documents_left_out:
        found.append(
            f"{survey.documents_left_out} licences or manifests were left out beyond the limits."
        )
    return found


def write_line(file: IO[str], row: Json) -> None:
    """Append one JSON object as a line."""
    file.write(json.dumps(row, separators=(",", ":")) + "\n")
