"""Readable copies of the files that a run gave, under their own names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swarm.client.local_files import copy_file, safe_name
from swarm.definitions.files import FileValue, is_file_value
from swarm.kernel.errors import UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.json import JsonObject, JsonValue
from swarm.store.ports import ArtifactStore


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file among the outputs, and where people find it."""

    output: str
    """Where it stands in the outputs: ``report``, or ``files[0]``."""
    name: str
    media_type: str | None
    size: int | None
    """In bytes; None for a directory."""
    path: Path


def file_values(value: JsonValue, place: str = "") -> Iterator[tuple[str, FileValue]]:
    """Every file value within ``value`` and where it stands."""
    if is_file_value(value):
        yield place, FileValue.from_json(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from file_values(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from file_values(item, f"{place}[{index}]")


async def keep_files(
    outputs: JsonObject, artifacts: ArtifactStore, home: Home, folder: Path, *, replace: bool
) -> list[KeptFile]:
    """Copy the files among ``outputs`` into ``folder``.

    Copies, not links: whoever edits one must not change the artifact.

    Args:
        outputs: the outputs of a run or an invocation.
        artifacts: where the content is.
        home: the home's folders.
        folder: made if it is not there.
        replace: whether files of the same names are overwritten, or left as they are.

    Raises:
        NotFoundError: an artifact is gone.
        UnavailableError: the folder cannot be written.
    """
    found = [(place, value) for place, value in file_values(outputs) if not value.is_live]
    if not found:
        return []
    return await asyncio.to_thread(_keep_all, found, artifacts, home, folder, replace)


def _keep_all(
    found: list[tuple[str, FileValue]],
    artifacts: ArtifactStore,
    home: Home,
    folder: Path,
    replace: bool,
) -> list[KeptFile]:
    kept: list[KeptFile] = []
    taken: dict[str, str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, value in found:
            name = unique_name(value, place, taken)
            target = folder / name
            if replace or not target.exists():
                copy_file(value, artifacts, home, target)
            kept.append(KeptFile(place, value.name, value.media_type, value.size, target))
    except OSError as error:
        raise UnavailableError(
            f"the files of the run cannot be copied: {error.strerror or error}",
            where=str(error.filename or folder),
            remedy="free space or choose another folder with --save; the artifacts are kept",
        ) from None
    return kept


def unique_name(value: FileValue, place: str, taken: dict[str, str]) -> str:
    """A safe file name for ``value`` that no other content has; notes it in ``taken``."""
    name = safe_name(value.name)
    if taken.setdefault(name, value.reference) == value.reference:
        return name
    base, count = safe_name(f"{place}-{name}"), 1
    name = base
    while taken.setdefault(name, value.reference) != value.reference:
        count += 1
        name = f"{count}-{base}"
    return name
