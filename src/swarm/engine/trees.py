"""Directories as artifacts: a listing of files, each an artifact of its own.

The listing is canonical JSON, ``{"files": [{"path", "sha256", "size", "executable"}]}``, sorted by
path, so that equal directories have equal references.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from swarm.kernel.errors import OutputError
from swarm.kernel.json import dump_bytes, loads
from swarm.store.ports import ArtifactStore

DIRECTORY_MEDIA_TYPE = "inode/directory"
MAX_DEPTH = 64
"""Folders within folders that may be handed out; each takes an open file while they are read."""


class Collector:
    """Copies files of one invocation into the artifact store, within a count."""

    def __init__(self, artifacts: ArtifactStore, max_files: int) -> None:
        self._artifacts = artifacts
        self._left = max_files

    async def put_file(self, descriptor: int) -> tuple[str, int]:
        """Store an open regular file; return its reference and size in bytes.

        Raises:
            OutputError: not a regular file of the directory's own, or one too many.
        """
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise OutputError("only regular files without further links can be handed out")
        if self._left == 0:
            raise OutputError(
                "the invocation hands out more files than the limit allows",
                remedy="hand out fewer, or one archive; the setting is max_output_files",
            )
        self._left -= 1
        return await self._artifacts.put_descriptor(descriptor), status.st_size

    async def put_tree(self, descriptor: int) -> str:
        """Store everything below an open directory; return the listing's reference."""
        files = []
        for path, opened in _walk(descriptor, ""):
            try:
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


def materialise_tree(artifacts: ArtifactStore, cache: Path, reference: str) -> Path:
    """Put a directory together again from its listing; the same listing is built once.

    Returns the folder, which must not be changed. Raises NotFoundError when a part is gone.
    """
    final = cache / "trees" / reference.removeprefix("sha256:")
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    listing = loads(artifacts.path(reference).read_bytes())
    building = Path(tempfile.mkdtemp(prefix="building-", dir=final.parent))
    try:
        for entry in listing["files"]:
            target = building / entry["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifacts.path(f"sha256:{entry['sha256']}"), target)
            target.chmod(0o755 if entry["executable"] else 0o644)
        building.chmod(0o755)
        try:
            building.rename(final)
        except OSError:
            if not final.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return final
