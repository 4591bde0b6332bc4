"""Directories as artifacts: a listing of files, each an artifact of its own.

The listing is canonical JSON, ``{"files": [{"path", "sha256", "size", "executable"}]}``, sorted by
path, so that equal directories have equal references. It is an artifact like any other, so an agent
can write one too: a listing is never trusted.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from swarm.definitions.files import ARTIFACT_KEY
from swarm.kernel.errors import (
    InputError,
    InvalidError,
    NotFoundError,
    OutputError,
    UnavailableError,
)
from swarm.kernel.json import JsonValue, dump_bytes, loads
from swarm.store.ports import ArtifactStore

DIRECTORY_MEDIA_TYPE = "inode/directory"
TREES = "trees"
"""The folder in the cache with directories put together again."""
MAX_DEPTH = 64
"""Folders within folders that may be handed out; each takes an open file while they are read."""
LISTING = b'{"files":'
"""How a listing begins, in canonical JSON."""
MAX_PATH_BYTES = 2048
"""Of a path within a directory that is handed out: the kernel takes 4,096, with what is before."""


class Collector:
    """Copies files of one invocation into the artifact store, within a count and a size.

    The size is that of the copies: a file full of holes takes no room where it was written.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        max_files: int,
        max_bytes: int,
        masked: Callable[[str], str] = lambda path: path,
        *,
        takes_links: bool = False,
    ) -> None:
        """
        Args:
            artifacts: takes the files.
            max_files: most files; max_bytes: most bytes, all together.
            masked: blots secrets out of a path; files whose paths have one are refused.
            takes_links: whether files that have other names too are taken. Those that an agent
                hands out are not: they may be somebody else's.
        """
        self._artifacts = artifacts
        self._masked = masked
        self._takes_links = takes_links
        self._left = max_files
        self._bytes_left = max_bytes

    async def put_file(self, descriptor: int) -> tuple[str, int]:
        """Store an open regular file; return its reference and size in bytes.

        Raises:
            OutputError: not a regular file of the directory's own, or one too many.
        """
        status = os.fstat(descriptor)
        has_links = status.st_nlink > 1 and not self._takes_links
        if not stat.S_ISREG(status.st_mode) or has_links:
            raise OutputError("only regular files without further links can be handed out")
        if self._left == 0:
            raise OutputError(
                "the invocation hands out more files than the limit allows",
                remedy="hand out fewer, or one archive; the setting is max_output_files",
            )
        if status.st_size > self._bytes_left:
            raise OutputError(
                "the invocation hands out more bytes in files than the limit allows",
                remedy="hand out less; the setting is max_output_files_mb",
            )
        self._left -= 1
        self._bytes_left -= status.st_size
        return await self._artifacts.put_descriptor(descriptor), status.st_size

    async def put_tree(self, descriptor: int) -> str:
        """Store everything below an open directory; return the listing's reference."""
        files = []
        for path, opened in _walk(descriptor, ""):
            try:
                self._check_path(path)
                reference, size = await self.put_file(opened)
                executable = bool(os.fstat(opened).st_mode & stat.S_IXUSR)
            finally:
                os.close(opened)
            files.append(
                {
                    "path": path,
                    "sha256": reference.removeprefix("sha256:"),
                    "size": size,
                    "executable": executable,
                }
            )
        files.sort(key=lambda entry: str(entry["path"]))
        return await self._artifacts.put_bytes(dump_bytes({"files": files}))

    def _check_path(self, path: str) -> None:
        """A listing tells paths, so they may hold no secret."""
        if (shown := self._masked(path)) != path:
            raise OutputError(
                f"{shown} cannot be handed out: its name has a secret in it",
                remedy="name files after something else",
            )


def _walk(descriptor: int, prefix: str, depth: int = 1) -> Iterator[tuple[str, int]]:
    """Every file below ``descriptor`` as (path, open descriptor); links are refused."""
    if depth > MAX_DEPTH:
        raise OutputError(
            f"the directory has more than {MAX_DEPTH} levels",
            remedy="hand out fewer levels, or one archive",
        )
    for name in sorted(os.listdir(descriptor)):
        path = f"{prefix}{name}"
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise OutputError(f"{path!a} cannot be handed out: its name is not UTF-8")
        if len(path.encode()) > MAX_PATH_BYTES:
            raise OutputError(f"{path[:100]}… cannot be handed out: its path is too long")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            opened = os.open(name, flags, dir_fd=descriptor)
        except OSError as error:
            raise OutputError(f"{path} cannot be handed out: {error.strerror}") from None
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            try:
                yield from _walk(opened, f"{path}/", depth + 1)
            finally:
                os.close(opened)
        else:
            yield path, opened


def listed_artifacts(artifacts: ArtifactStore, reference: str) -> list[str]:
    """The references in the listing of a directory; none if it is something else, or gone."""
    try:
        with artifacts.held([reference]), artifacts.path(reference).open("rb") as file:
            if file.read(len(LISTING)) != LISTING:
                return []
        return [entry.reference for entry in _entries(artifacts, reference)]
    except (NotFoundError, InputError, FileNotFoundError):
        return []


class Entry(NamedTuple):
    """A file in the listing of a directory."""

    path: str
    reference: str
    executable: bool


def _entries(artifacts: ArtifactStore, reference: str) -> list[Entry]:
    """The files of a listing; raises as :func:`entries_of`, and NotFoundError."""
    with artifacts.held([reference]):
        return entries_of(artifacts.path(reference).read_bytes(), reference)


def entries_of(data: bytes, reference: str) -> list[Entry]:
    """The files in the bytes of a listing, which ``reference`` names.

    Raises:
        InputError: it is no listing, or one that leads out of its folder.
    """
    try:
        entries = [_entry(value) for value in loads(data)["files"]]
    except (InvalidError, TypeError, KeyError):
        raise InputError(f"{reference} is not the listing of a directory") from None
    files = {entry.path for entry in entries}
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    if len(files) < len(entries) or files & folders:
        raise InputError(f"{reference} lists two files at one path")
    return entries


def _entry(value: JsonValue) -> Entry:
    path, digest, executable = value["path"], value["sha256"], value["executable"]
    if not isinstance(path, str) or not isinstance(digest, str) or not isinstance(executable, bool):
        raise TypeError("a field of another type")
    parts = path.split("/")
    if "\0" in path or not {"", ".", ".."}.isdisjoint(parts) or len(parts) > MAX_DEPTH + 1:
        raise InputError(f"the listing of a directory holds {path!r}, which leads elsewhere")
    return Entry(path, f"sha256:{digest}", executable)


def is_materialised(cache: Path, reference: str) -> bool:
    """Whether the directory of a listing has been put together here."""
    return _tree(cache, reference).is_dir()


def _tree(cache: Path, reference: str) -> Path:
    return cache / TREES / reference.removeprefix("sha256:")


def materialise_tree(artifacts: ArtifactStore, cache: Path, reference: str) -> Path:
    """Put a directory together again from its listing; the same listing is built once.

    Returns the folder, which must not be changed.

    Raises:
        NotFoundError: a part is gone.
        InputError: it is no listing of a directory.
        UnavailableError: the disk does not take it.
    """
    final = _tree(cache, reference)
    with suppress(FileNotFoundError):
        os.utime(final)  # used again: it is kept for longer
        return final
    entries = _entries(artifacts, reference)
    try:
        return _build(entries, artifacts, final)
    except OSError as error:
        raise UnavailableError(
            f"the directory cannot be put together: {error.strerror or error}",
            where=str(error.filename or final),
            remedy="check that the disk has space left and that you may write the folder",
        ) from None


def _build(entries: Iterable[Entry], artifacts: ArtifactStore, final: Path) -> Path:
    final.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=final.parent))
    try:
        for entry in entries:
            target = building / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with artifacts.held([entry.reference]):
                shutil.copyfile(artifacts.path(entry.reference), target)
            target.chmod(0o755 if entry.executable else 0o644)
        building.chmod(0o755)
        try:
            building.rename(final)
        except OSError:
            if not final.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return final


def file_references(value: JsonValue) -> Iterator[tuple[str, bool]]:
    """Every artifact reference within a JSON value, and whether it is said to be a directory."""
    if isinstance(value, dict):
        reference = value.get(ARTIFACT_KEY)
        if isinstance(reference, str):
            yield reference, value.get("media_type") == DIRECTORY_MEDIA_TYPE
        for item in value.values():
            yield from file_references(item)
    elif isinstance(value, list):
        for item in value:
            yield from file_references(item)
