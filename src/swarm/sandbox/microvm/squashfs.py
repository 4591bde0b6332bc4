"""Read-only file systems: the same files give the same bytes, wherever and by whom they are made.

A tar stream that is written here (sorted, no owners, no times) is turned into squashfs by
``sqfstar`` of squashfs-tools. Nothing but files, folders and links gets in.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

from swarm.kernel.errors import SandboxUnavailable

EPOCH: Final = 315_532_800
"""The time of every file: 1980-01-01, the earliest that a zip archive can hold."""
_OPTIONS: Final = (
    *("-no-xattrs", "-no-progress", "-quiet", "-reproducible", "-root-mode", "755"),
    *("-mkfs-time", str(EPOCH), "-all-time", str(EPOCH)),
)


def write_squashfs(
    sources: Mapping[str, Path], target: Path, *, owner: int = 0, compress: bool = True
) -> None:
    """Write the file system ``target`` of files and folders.

    Args:
        sources: path inside (``""`` for the root): what is there. Links in it stay links; a source
            that is itself a link is followed.
        target: must not exist.
        owner: uid and gid of everything inside.
        compress: whether to compress, which the guest pays for when it reads.

    Raises:
        SandboxUnavailable: squashfs-tools is missing or failed, or a source cannot be read.
    """
    program = shutil.which("sqfstar")
    if program is None:
        raise SandboxUnavailable(
            "read-only images are made with sqfstar, which is missing",
            where="sqfstar",
            remedy="`apt-get install squashfs-tools` (4.5 or newer)",
        )
    packing = ("-comp", "lz4") if compress else ("-noI", "-noD", "-noF", "-noX")
    process = subprocess.Popen(
        [program, *packing, *_OPTIONS, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    assert process.stdin is not None
    assert process.stderr is not None
    failure = ""
    try:
        with process.stdin as stream:
            write_tar(sources, stream, owner=owner)
    except BrokenPipeError:
        pass  # It has said why on stderr.
    except OSError as error:
        failure = f"{error.filename}: {error.strerror}"
    complaint = process.stderr.read().decode("utf-8", "replace").strip()
    process.stderr.close()
    if process.wait() != 0 or failure:
        target.unlink(missing_ok=True)
        raise SandboxUnavailable(
            f"the image cannot be made: {failure or complaint}",
            where=str(target),
            remedy="check that the files can be read and that the disk has room",
        )


def write_tar(sources: Mapping[str, Path], stream: IO[bytes], *, owner: int) -> None:
    """Write a tar stream of ``sources``; see :func:`write_squashfs`."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        made = {""}
        for name in sorted(sources):
            for folder in _parents(name):
                if folder not in made:
                    made.add(folder)
                    archive.addfile(_folder(folder, owner))
            for inside, path in _walk(name, sources[name].resolve()):
                if inside not in made:
                    made.add(inside)
                    _add(archive, inside, path, owner)


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


def _walk(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """``path`` and all below it, sorted, with the names inside."""
    if name:
        yield name, path
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            yield from _walk(f"{name}/{child.name}" if name else child.name, child)


def _add(archive: tarfile.TarFile, name: str, path: Path, owner: int) -> None:
    status = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mtime, entry.uid, entry.gid = EPOCH, owner, owner
    entry.mode = 0o755 if status.st_mode & 0o111 else 0o644
    if stat.S_ISDIR(status.st_mode):
        archive.addfile(_folder(name, owner))
    elif stat.S_ISLNK(status.st_mode):
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        archive.addfile(entry)
    elif stat.S_ISREG(status.st_mode):
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            entry.size = os.fstat(file.fileno()).st_size
            archive.addfile(entry, file)


def _folder(name: str, owner: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, EPOCH
    entry.uid = entry.gid = owner
    return entry
