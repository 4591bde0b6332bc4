"""Files of this machine as inputs of runs, and files that runs gave as files of this machine."""

from __future__ import annotations

import mimetypes
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from swarm.definitions.files import FileValue
from swarm.engine.trees import DIRECTORY_MEDIA_TYPE, Collector, materialise_tree
from swarm.kernel.errors import InputError, NotFoundError, OutputError
from swarm.kernel.home import Home
from swarm.kernel.ids import new_id
from swarm.store.ports import ArtifactStore, DirectoryLimits

DEFAULT_MEDIA_TYPE = "application/octet-stream"
MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class TakenPath:
    """A local path as a value of an input."""

    value: FileValue
    mount: str | None = None
    """The absolute path that a live directory's reference stands for."""


async def take_path(
    given: str, artifacts: ArtifactStore, *, kind: str | None, where: str
) -> TakenPath:
    """Make a file value of a local path.

    A file is copied into the artifacts. A directory is not: a run sees it as it is by then, read
    only; but where machines share artifacts it is copied too.

    Args:
        given: the path; ``~`` is the user's home.
        artifacts: takes the file.
        kind: ``file`` or ``directory``, where one of them is declared.
        where: names the input in errors.

    Raises:
        NotFoundError: nothing is there.
        InputError: no path, or a directory where a file is wanted, or the other way round.
    """
    path = Path(os.path.realpath(Path(given).expanduser()))
    kind = kind or ("directory" if path.is_dir() else "file")
    _check_path(kind, given, path, where)
    if kind == "directory" and artifacts.directories is not None:
        reference = await _copied(path, artifacts, artifacts.directories, where)
        return TakenPath(FileValue(reference, path.name or "/", None, DIRECTORY_MEDIA_TYPE))
    if kind == "directory":
        reference = f"live:{new_id('dir')}"
        value = FileValue(reference, path.name or "/", None, DIRECTORY_MEDIA_TYPE)
        return TakenPath(value, str(path))
    media_type = mimetypes.guess_type(path.name)[0] or DEFAULT_MEDIA_TYPE
    reference = await artifacts.put_file(path)
    with artifacts.held([reference]):
        size = (await artifacts.fetch(reference)).stat().st_size
    return TakenPath(FileValue(reference, path.name, size, media_type))


async def _copied(
    folder: Path, artifacts: ArtifactStore, limits: DirectoryLimits, where: str
) -> str:
    """Copy a directory into the artifacts; return the reference to its listing."""
    collector = Collector(artifacts, limits.files, limits.size, takes_links=True)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return await collector.put_tree(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, OutputError) as error:
        reason = error.message if isinstance(error, OutputError) else error.strerror
        raise InputError(
            f"the directory {folder} cannot be copied to where other machines find it: {reason}",
            where=where,
            remedy="give a directory of regular files, without symbolic links and within the "
            "settings max_directory_files and max_directory_mb, or an archive of it as a file",
        ) from None


def _check_path(kind: str, given: str, path: Path, where: str) -> None:
    if not given or "\0" in given:
        raise InputError(
            "the path is empty or holds a null character", where=where, remedy="give a path"
        )
    if not path.exists():
        remedy = f"give the path of a {kind} that is there"
        raise NotFoundError(f"there is no {kind} {path}", where=where, remedy=remedy)
    if kind == "directory" and not path.is_dir():
        raise InputError(f"{path} is not a directory", where=where, remedy="give a directory")
    if kind == "file" and not path.is_file():
        is_what = "a directory" if path.is_dir() else "not a regular file"
        raise InputError(f"{path} is {is_what}", where=where, remedy="give a regular file")
    needed = os.R_OK | os.X_OK if kind == "directory" else os.R_OK
    if not os.access(path, needed):
        raise InputError(f"{path} cannot be read", where=where, remedy="make it readable")


def safe_name(name: str) -> str:
    """``name`` without folders, hidden-file dots, or characters that drive terminals."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    printable = "".join(character if character.isprintable() else "_" for character in last)
    shortened = printable.lstrip(".").encode(errors="replace")[-MAX_NAME_BYTES:]
    return shortened.decode(errors="ignore") or "file"


def copy_file(value: FileValue, artifacts: ArtifactStore, home: Home, target: Path) -> None:
    """Copy what a run gave to ``target``, over what is there.

    A copy, not a link: whoever edits it must not change the artifact.

    Raises:
        NotFoundError: the artifact is gone.
        OSError: the target cannot be written.
    """
    if value.media_type == DIRECTORY_MEDIA_TYPE:
        tree = materialise_tree(artifacts, home.cache, value.reference)
        shutil.copytree(tree, target, dirs_exist_ok=True)
        return
    descriptor, partial = tempfile.mkstemp(prefix=".swarm-", dir=target.parent)
    os.close(descriptor)
    try:
        with artifacts.held([value.reference]):
            shutil.copyfile(artifacts.path(value.reference), partial)
        Path(partial).chmod(0o644)
        Path(partial).replace(target)
    finally:
        Path(partial).unlink(missing_ok=True)
