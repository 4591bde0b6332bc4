"""What lies at a path that a user gave; the operating system's refusals are told in our words."""

from __future__ import annotations

import os
import stat
from enum import Enum
from pathlib import Path

from swarm.kernel.errors import NotFoundError, UnavailableError


class Kind(Enum):
    """What lies at a path, links followed."""

    NOTHING = "nothing"
    FOLDER = "folder"
    FILE = "file"
    OTHER = "other"


def absolute(path: Path) -> Path:
    """``path`` from the root, links kept as they are.

    Raises:
        UnavailableError: the working directory is gone.
    """
    try:
        return path.absolute()
    except FileNotFoundError:
        raise UnavailableError(
            "the working directory is gone", where=str(path), remedy="change to one that is there"
        ) from None


def kind_of(path: Path) -> Kind:
    """What lies at ``path``.

    Raises:
        UnavailableError: it cannot be told (no permission, a name too long, a loop of links).
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return Kind.NOTHING
    except OSError as error:
        raise unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        return Kind.FOLDER
    return Kind.FILE if stat.S_ISREG(mode) else Kind.OTHER


def children_with(folder: Path, file: str) -> list[Path]:
    """The folders directly in ``folder`` that hold ``file``, by name.

    A folder that cannot be looked into is among them, so that reading it says why.

    Raises:
        NotFoundError: there is no such folder; UnavailableError: it cannot be read.
    """
    folder = absolute(folder)
    if kind_of(folder) is not Kind.FOLDER:
        raise NotFoundError(
            "there is no such folder", where=str(folder), remedy="give a folder that is there"
        )
    try:
        with os.scandir(folder) as entries:
            children = sorted(Path(entry.path) for entry in entries)
    except OSError as error:
        raise unreadable(folder, error) from None
    return [child for child in children if _may_hold(child, file)]


def unreadable(path: Path, error: OSError) -> UnavailableError:
    """The error for what is there and cannot be read."""
    return UnavailableError(
        f"it cannot be read: {error.strerror}", where=str(path), remedy="make it readable"
    )


def _may_hold(child: Path, file: str) -> bool:
    try:
        return kind_of(child / file) is Kind.FILE
    except UnavailableError:
        return True
