"""Finds a secret in whatever was written and printed, whole or in part, plain or encoded.

The values looked for have two random halves of letters and digits, which no quoting changes, with
characters between them that every quoting does change. Each piece of ``PIECE`` characters of a half
is looked for: plain, in hexadecimal, in base64 at each of the three offsets in both alphabets, and
in UTF-16. So a value that was quoted, cut or put into something longer is found all the same.
"""

from __future__ import annotations

import base64
import gzip
import io
import random
import sqlite3
import string
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

HALF = 24
PIECE = 12
"""Characters; by chance, fewer would be found where there is nothing."""
BETWEEN = "/+\"'\\ü&%~ $"
_SQLITE = b"SQLite format 3\0"


def make_value(rng: random.Random) -> str:
    """A random secret."""
    halves = ["".join(rng.choices(string.ascii_letters + string.digits, k=HALF)) for _ in range(2)]
    return BETWEEN.join(halves)


class Searcher:
    """Looks for some secrets."""

    def __init__(self, values: Mapping[str, str]) -> None:
        """``values``: the secrets by what they are called in what is found."""
        self._traces = {
            trace: f"{name} as {form}"
            for name, value in values.items()
            for half in value.split(BETWEEN)
            for piece in _pieces(half)
            for form, trace in _forms(piece.encode())
        }

    def in_bytes(self, data: bytes) -> set[str]:
        """What of which secrets is in ``data``: ``{"TOKEN as hex", ...}``."""
        return {told for trace, told in self._traces.items() if trace in data}

    def below(self, folder: Path) -> dict[str, set[str]]:
        """What is found in each file below ``folder``, its name, and what it holds unpacked."""
        found = {}
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            told = self.in_bytes(name.encode(errors="surrogateescape"))
            if path.is_symlink():
                told |= self.in_bytes(bytes(path.readlink()))
            elif path.is_file():
                for data in contents(path):
                    told |= self.in_bytes(data)
            if told:
                found[name] = told
        return found


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what they say to a program that knows its format."""
    data = path.read_bytes()
    yield data
    if data.startswith(_SQLITE):
        yield _dump(path)
    elif data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data)
    elif data.startswith(b"x\x9c"):
        yield zlib.decompress(data)
    elif data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def _dump(database: Path) -> bytes:
    """All rows as SQL: a value that lies on two pages is whole here."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return "\n".join(connection.iterdump()).encode(errors="surrogatepass")


def _pieces(half: str) -> Iterator[str]:
    for start in range(len(half) - PIECE + 1):
        yield half[start : start + PIECE]


def _forms(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "it is", data
    yield "it is, backwards", data[::-1]
    yield "hexadecimal", data.hex().encode()
    yield "HEXADECIMAL", data.hex().upper().encode()
    yield "percents", "".join(f"%{byte:02X}" for byte in data).encode()
    yield "UTF-16", data.decode().encode("utf-16-le")
    for offset in range(3):
        # Only characters that no neighbour has a part in.
        first, last = (8 * offset + 5) // 6, 8 * (offset + len(data)) // 6
        core = base64.b64encode(b"\0" * offset + data)[first:last]
        yield f"base64 at {offset}", core
        yield f"base64 for URLs at {offset}", core.translate(bytes.maketrans(b"+/", b"-_"))
