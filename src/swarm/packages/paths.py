"""Which paths a package may hold: the same rules for folders and for archives. Pure.

A path that passes means one file on every system: no traversal, no drive, nothing that a
case-insensitive or normalising file system would merge with another path.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MAX_NAME_BYTES = 255
"""Longest single name, in bytes of UTF-8 (what Linux file systems allow)."""
MAX_PATH_BYTES = 1024
"""Longest path within a package, in bytes of UTF-8."""
MAX_DEPTH = 32
"""Most folders in one another, the file included."""

_DRIVE = re.compile(r"^[A-Za-z]:")


def path_fault(path: str) -> str | None:
    """What is wrong with a relative POSIX path, as the end of a sentence; None if nothing is."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    if not path:
        return "has no name"
    if any(unicodedata.category(character) == "Cc" for character in path):
        return "has a control character in its name"
    if "\\" in path:
        return "has a backslash in its name"
    if path.startswith("/"):
        return "is an absolute path"
    if _DRIVE.match(path):
        return "starts with a drive letter"
    names = path.split("/")
    if ".." in names:
        return "leads out of the package with `..`"
    if "" in names or "." in names:
        return "is not a plain relative path"
    if len(encoded) > MAX_PATH_BYTES:
        return f"has a path longer than {MAX_PATH_BYTES} bytes"
    if len(names) > MAX_DEPTH:
        return f"lies more than {MAX_DEPTH} folders deep"
    if any(len(name.encode()) > MAX_NAME_BYTES for name in names):
        return f"has a name longer than {MAX_NAME_BYTES} bytes"
    return None


def find_collisions(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of paths (files, or folders on the way to them) that some file system would merge.

    Two spellings collide when they are equal after Unicode normalisation and case folding
    (canonical caseless matching, Unicode 3.13, D145). A file that is also needed as a folder
    collides with what lies below it.
    """
    spellings: dict[str, str] = {}
    files: set[str] = set()
    folders: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    for path in paths:
        names = path.split("/")
        for depth in range(1, len(names) + 1):
            spelling = "/".join(names[:depth])
            key = _caseless(spelling)
            earlier = spellings.setdefault(key, spelling)
            if earlier != spelling:
                found.append((earlier, spelling))
                break
            if depth < len(names):
                if key in files:
                    found.append((spelling, path))
                    break
                folders.setdefault(key, path)
            elif key in files or key in folders:
                found.append((spelling, folders.get(key, path)))
            else:
                files.add(key)
    return found


def printable(path: str) -> str:
    """``path`` with what cannot be shown on a terminal escaped."""
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in shown
    )


def _caseless(text: str) -> str:
    folded = unicodedata.normalize("NFD", text).casefold()
    return unicodedata.normalize("NFD", folded)
