"""Count the markers that people leave in code for work still to be done.

A marker is one of the words in capitals, as a word of its own, wherever it stands in the file;
comments are not told from strings, which would need a lexer for every language.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from display import clean, shown
from repository import Reader, open_repository

KINDS = ("TODO", "FIXME", "HACK", "XXX")
MARKER = re.compile(rb"(?<![\w-])(TODO|FIXME|HACK|XXX)(?![\w-])")
SEARCHED_TYPES = frozenset({"programming", "markup"})
MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_FILES = 20
LINE_CHARACTERS = 160
PROGRESS_STEP = 2_000

Json = dict[str, Any]


class Found(NamedTuple):
    """A marker: its kind, its line from 1, and that line's text."""

    kind: str
    line: int
    text: str


def handler(inputs: Json, context: Any) -> Json:
    """Search the files of the listing."""
    reader = Reader(open_repository(inputs["path"]))
    kinds = Counter(dict.fromkeys(KINDS, 0))
    files: list[tuple[int, bytes, Found]] = []
    in_prose = lines = 0
    try:
        for number, row in enumerate(own_texts(inputs["listing"]), 1):
            path = unquote_to_bytes(row["path"])
            content = reader.read(path, row.get("object", ""), MAX_FILE_BYTES)
            text = narrow(content.data) if content else b""
            markers = Counter(match.group(1) for match in MARKER.finditer(text))
            count = markers.total()
            if row["type"] not in SEARCHED_TYPES:
                in_prose += count
                continue
            lines += row["lines"]
            kinds.update({kind.decode(): times for kind, times in markers.items()})
            if count:
                files.append((count, path, first_marker(text)))
            if number % PROGRESS_STEP == 0:
                context.progress(None, f"{number:,} files")
    finally:
        reader.close()
    total = kinds.total()
    files.sort(key=lambda item: (-item[0], item[1]))
    counted = [{"path": shown(path), "count": count} for count, path, _ in files[:MAX_FILES]]
    samples = [{"path": shown(path), **found._asdict()} for _, path, found in files[:MAX_FILES]]
    return {
        "total": total,
        "kinds": dict(kinds),
        "in_prose": in_prose,
        "lines": lines,
        "per_thousand_lines": round(1000 * total / lines, 2) if lines else 0.0,
        "files": bounded(counted, len(files)),
        "samples": bounded(samples, total),
    }


def own_texts(listing: str) -> Iterator[Json]:
    """The rows of the listing that are the project's own text files."""
    with open(listing, encoding="ascii") as rows:
        for line in rows:
            row = json.loads(line)
            if row["kind"] == "text" and not row.get("vendored") and not row.get("generated"):
                yield row


def narrow(data: bytes) -> bytes:
    """The text as UTF-8 or something like it; UTF-16 and UTF-32 are known by their first bytes."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return data.decode("utf-32", "replace").encode("utf-8", "replace")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode("utf-8", "replace")
    return data


def first_marker(text: bytes) -> Found:
    """The first marker of a text that has one."""
    match = MARKER.search(text)
    assert match is not None
    start = text.rfind(b"\n", 0, match.start()) + 1
    end = text.find(b"\n", match.end())
    line = text[start : end if end >= 0 else len(text)]
    if len(line) > 4 * LINE_CHARACTERS:
        line = text[match.start() : match.start() + LINE_CHARACTERS]
    return Found(
        match.group(1).decode(),
        text.count(b"\n", 0, start) + 1,
        clean(line.decode("utf-8", "replace").strip(), LINE_CHARACTERS),
    )


def bounded(items: list[Json], total: int) -> Json:
    """A list that cannot grow without limit, with how many there really are."""
    return {"items": items, "total": total, "truncated": total > len(items)}
