"""A package folder or an ``.apkg`` archive, read into one immutable :class:`Package`."""

from __future__ import annotations

from pathlib import Path

from swarm.kernel.errors import DefinitionError, NotFoundError, Problem
from swarm.kernel.settings import Settings
from swarm.packages.archive import read_archive
from swarm.packages.folders import read_folder
from swarm.packages.ignoring import IGNORE_FILE, MAX_IGNORE_BYTES, Ignored
from swarm.packages.manifest import read_manifest
from swarm.packages.package import MANIFEST, Contents, Package, package_digest
from swarm.packages.places import Kind, absolute, kind_of, unreadable


def read_package(path: Path, settings: Settings) -> Package:
    """Read and check a package without running any of its code.

    Args:
        path: the package's folder, its ``agent.yaml``, or an ``.apkg`` archive.
        settings: their limits hold.

    Raises:
        NotFoundError: nothing is there.
        DefinitionError: the manifest, its entry, or files that cannot be packed; all that was
            found in one place is in it.
        ArchiveError: the archive is damaged or hostile.
        UnavailableError: something cannot be read.
    """
    path = absolute(path)
    kind = kind_of(path)
    if path.name == MANIFEST and kind is Kind.FILE:
        path, kind = path.parent, Kind.FOLDER
    contents: Contents
    if kind is Kind.NOTHING:
        raise NotFoundError(
            "there is no such package",
            where=str(path),
            remedy="give the folder of a package, or an .apkg archive",
        )
    if kind is Kind.FOLDER:
        contents = read_folder(path, _own_ignored(path), settings)
    else:
        contents = read_archive(path, settings)
    definition = read_manifest(contents, str(path), settings)
    digest = package_digest(contents.files)
    return Package(definition, digest, contents, path, is_archive=kind is not Kind.FOLDER)


def _own_ignored(root: Path) -> Ignored:
    file = root / IGNORE_FILE
    if kind_of(file) is not Kind.FILE:
        return Ignored()
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_IGNORE_BYTES + 1)
    except OSError as error:
        raise unreadable(file, error) from None
    if len(data) > MAX_IGNORE_BYTES:
        problem = Problem(
            f"it is larger than {MAX_IGNORE_BYTES} bytes", str(file), remedy="use fewer patterns"
        )
        raise DefinitionError([problem])
    try:
        return Ignored(data.decode(), str(file))
    except UnicodeDecodeError:
        problem = Problem("it is not UTF-8 text", str(file), remedy="save it with UTF-8 encoding")
        raise DefinitionError([problem]) from None
