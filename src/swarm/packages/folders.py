"""A package's files on disk: found and hashed without following a link, and written safely.

Every step opens a name relative to a directory that is already open and refuses links, so nothing
that changes underneath can lead the walk, or a copy, to another place.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from swarm.kernel.durability import sync_folder
from swarm.kernel.errors import DefinitionError, NotFoundError, Problem, UnavailableError
from swarm.kernel.settings import MIB, Settings
from swarm.packages.ignoring import Ignored
from swarm.packages.package import Contents, PackageFile, changed
from swarm.packages.paths import find_collisions, path_fault, printable

CHUNK_BYTES = 256 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: a FIFO put in a file's place must not hang the reader.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FolderContents:
    """The files of a package folder."""

    root: Path
    files: tuple[PackageFile, ...]

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file of the folder.

        Raises:
            ConflictError: it is gone, or no longer a plain file.
            UnavailableError: it cannot be read.
        """
        try:
            descriptor = _open_below(self.root, path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise changed(path) from None
        except OSError as error:
            raise _unreadable(self.root / path, error) from None
        with os.fdopen(descriptor, "rb") as stream:
            yield stream


def read_folder(root: Path, ignored: Ignored, settings: Settings) -> FolderContents:
    """Find and hash the files of a package folder.

    Raises:
        DefinitionError: links, devices, names that cannot be packed, or more than the settings
            allow; every fault found is in it.
        NotFoundError: there is no such folder.
        UnavailableError: something in it cannot be read.
    """
    walk = _Walk(root, ignored, settings)
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            "there is no such folder", where=str(root), remedy="give the folder of a package"
        ) from None
    except OSError as error:
        raise _unreadable(root, error) from None
    try:
        walk.folder(descriptor, "")
    finally:
        os.close(descriptor)
    walk.files.sort()
    for one, other in find_collisions(file.path for file in walk.files):
        walk.fault(
            other,
            f"collides with `{printable(one)}` where case or normalisation of names is ignored",
            "rename one of them",
        )
    if walk.problems:
        raise DefinitionError(walk.problems)
    return FolderContents(root, tuple(walk.files))


@dataclass(slots=True)
class _Walk:
    root: Path
    ignored: Ignored
    settings: Settings
    files: list[PackageFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    size: int = 0

    def fault(self, path: str, message: str, remedy: str) -> None:
        shown = printable(path)
        self.problems.append(
            Problem(f"`{shown}` {message}", printable(str(self.root / path)), remedy=remedy)
        )

    def folder(self, descriptor: int, path: str) -> None:
        """Take in everything below an open folder; ``path`` ends with a slash or is empty."""
        with os.scandir(descriptor) as entries:
            found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        for entry in found:
            self._entry(descriptor, entry, path + entry.name)

    def _entry(self, parent: int, entry: os.DirEntry[str], path: str) -> None:
        is_folder = entry.is_dir(follow_symlinks=False)
        if self.ignored.folder(path) if is_folder else self.ignored.file(path):
            return
        if (message := path_fault(path)) is not None:
            self.fault(path, message, "rename it, or leave it out with a line in .swarmignore")
        elif entry.is_symlink():
            self._link(parent, path)
        elif is_folder:
            self._subfolder(parent, entry.name, path)
        elif entry.is_file(follow_symlinks=False):
            self._file(parent, entry.name, path)
        else:
            self._special(path)

    def _subfolder(self, parent: int, name: str, path: str) -> None:
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            raise changed(path) from None
        except OSError as error:
            raise _unreadable(self.root / path, error) from None
        try:
            self.folder(descriptor, path + "/")
        finally:
            os.close(descriptor)

    def _file(self, parent: int, name: str, path: str) -> None:
        try:
            descriptor = os.open(name, _FILE, dir_fd=parent)
        except FileNotFoundError:
            raise changed(path) from None
        except OSError as error:
            raise _unreadable(self.root / path, error) from None
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise changed(path)
            self._check_room(path, status.st_size)
            digest = hashlib.sha256()
            size = 0
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
            if size != status.st_size:
                raise changed(path)
        executable = bool(status.st_mode & stat.S_IXUSR)
        self.files.append(PackageFile(path, size, digest.hexdigest(), executable))

    def _check_room(self, path: str, size: int) -> None:
        """Stop at once where a limit is passed, before reading the rest."""
        self.size += size
        settings = self.settings
        remedy = "leave files out with .swarmignore, or raise the setting {}"
        if self.size > settings.max_package_mb * MIB:
            message = f"makes the package larger than {settings.max_package_mb} MiB"
            self.fault(path, message, remedy.format("max_package_mb"))
        elif len(self.files) >= settings.max_package_files:
            message = f"makes the package hold more than {settings.max_package_files} files"
            self.fault(path, message, remedy.format("max_package_files"))
        else:
            return
        raise DefinitionError(self.problems)

    def _link(self, parent: int, path: str) -> None:
        try:
            target = os.readlink(path.rsplit("/", 1)[-1], dir_fd=parent)
        except OSError:
            raise changed(path) from None
        leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if target.startswith("/") or leads_to == ".." or leads_to.startswith("../"):
            message = f"is a link that leaves the package, to `{printable(target)}`"
        else:
            message = f"is a link, to `{printable(target)}`; a package holds plain files only"
        self.fault(path, message, "put the file itself there, or leave it out with .swarmignore")

    def _special(self, path: str) -> None:
        self.fault(
            path,
            "is a device, socket or FIFO; a package holds plain files only",
            "remove it, or leave it out with a line in .swarmignore",
        )


def write_tree(contents: Contents, into: Path, *, durable: bool = False) -> None:
    """Write the files of a package below ``into``, a folder that is there and empty.

    Each file is checked against its digest while it is written. Folders get mode 0755, files 0755
    or 0644, whatever the umask. ``durable`` flushes each file and folder to the disk, except for
    the name of ``into`` itself.

    Raises:
        ConflictError: a file is no longer what was read before.
        UnavailableError: it cannot be written.
    """
    try:
        root = os.open(into, _DIRECTORY)
        try:
            os.fchmod(root, 0o755)
            for file in contents.files:
                with _parent_folder(root, file.path) as (parent, name):
                    _write_file(contents, file, parent, name, durable)
            if durable:
                for folder in _folders(contents):
                    sync_folder(into / folder)
        finally:
            os.close(root)
    except OSError as error:
        raise UnavailableError(
            f"the package cannot be written: {error.strerror}",
            where=str(into),
            remedy="make room, or make the folder writable",
        ) from None


def _folders(contents: Contents) -> set[PurePosixPath]:
    """Every folder of a package, the package's own included."""
    return {folder for file in contents.files for folder in PurePosixPath(file.path).parents}


@contextmanager
def _parent_folder(root: int, path: str) -> Iterator[tuple[int, str]]:
    """The open folder that ``path`` lies in (made where missing) and the file's name in it."""
    *folders, name = path.split("/")
    parent = os.dup(root)
    try:
        for folder in folders:
            try:
                os.mkdir(folder, 0o755, dir_fd=parent)
                made = True
            except FileExistsError:
                made = False
            child = os.open(folder, _DIRECTORY, dir_fd=parent)
            os.close(parent)
            parent = child
            if made:
                os.fchmod(parent, 0o755)
        yield parent, name
    finally:
        os.close(parent)


def _write_file(
    contents: Contents, file: PackageFile, parent: int, name: str, durable: bool
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    digest = hashlib.sha256()
    left = file.size
    with (
        contents.open(file.path) as source,
        os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as target,
    ):
        while chunk := source.read(min(CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise changed(file.path)
            digest.update(chunk)
            target.write(chunk)
        if left or digest.hexdigest() != file.sha256:
            raise changed(file.path)
        os.fchmod(target.fileno(), file.mode)
        if durable:
            target.flush()
            os.fsync(target.fileno())


def _open_below(root: Path, path: str) -> int:
    """Open a plain file below ``root`` without following any link."""
    *folders, name = path.split("/")
    parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            child = os.open(folder, _DIRECTORY, dir_fd=parent)
            os.close(parent)
            parent = child
        descriptor = os.open(name, _FILE, dir_fd=parent)
    finally:
        os.close(parent)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(path)
    return descriptor


def _unreadable(path: Path, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"it cannot be read: {error.strerror}",
        where=printable(str(path)),
        remedy="make it readable, or leave it out with a line in .swarmignore",
    )
