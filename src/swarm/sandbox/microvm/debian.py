"""Debian packages as files: resolved and fetched by apt, unpacked by us, never installed.

apt works on folders of its own here, so neither root nor the system's package database is needed;
only its package lists (``apt-get update``) are shared. apt checks signatures and digests.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from swarm.kernel.errors import UnavailableError
from swarm.kernel.json import JsonObject

_MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders of the root that are links into ``/usr`` (``UsrMerge``)."""
_SECONDS: Final = 900.0
_URI: Final = re.compile(r"^'[^']*' (?P<file>\S+\.deb) \d+ ")


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """One binary package, fetched."""

    name: str
    version: str
    architecture: str
    sha256: str
    file: Path

    def as_json(self) -> JsonObject:
        return {
            "name": self.name,
            "version": self.version,
            "architecture": self.architecture,
            "sha256": self.sha256,
        }


def fetch(seeds: Sequence[str], excluded: Sequence[str], folder: Path) -> list[DebianPackage]:
    """Packages ``seeds`` with all that they depend on, less ``excluded``, as files in ``folder``.

    Files that are there already are not fetched again.

    Raises:
        UnavailableError: apt is missing, knows no such packages, or cannot reach its archive.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise UnavailableError(
                f"the image is made of Debian packages, and {program} is missing",
                where=program,
                remedy="build on a Debian system and copy the image's folder here "
                "(SWARM_MICROVM_IMAGE)",
            )
    folder.mkdir(parents=True, exist_ok=True)
    options = _private_options(folder)
    wanted = [
        name
        for name in _resolve(seeds, options)
        if not any(re.fullmatch(pattern, name.partition("_")[0]) for pattern in excluded)
    ]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        _apt([*options, "download", *map(_selector, missing)], folder)
    return [_describe(folder / name) for name in sorted(wanted)]


def _private_options(folder: Path) -> list[str]:
    private = folder / "apt"
    (private / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    (private / "status").write_text("")
    # Not from archives beside Debian's: an image made elsewhere shall have the same packages.
    (private / "preferences").write_text(
        "Package: *\nPin: release o=Debian\nPin-Priority: 1001\n\n"
        "Package: *\nPin: release o=*\nPin-Priority: -1\n"
    )
    values = {
        "Dir::State::status": private / "status",
        "Dir::Cache": private,
        "Dir::Etc::preferences": private / "preferences",
        "Dir::Etc::preferencesparts": "/nonexistent",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
    }
    return [part for name, value in values.items() for part in ("-o", f"{name}={value}")]


def _resolve(seeds: Sequence[str], options: Sequence[str]) -> list[str]:
    """File names of the packages that a system with nothing installed would get."""
    text = _apt([*options, "-y", "-q", "--print-uris", "install", *seeds], Path("/"))
    found = [match["file"] for line in text.splitlines() if (match := _URI.match(line))]
    return sorted(set(found))


def _selector(file_name: str) -> str:
    """``name=version`` of a file name, in which apt writes a colon as ``%3a``."""
    name, version, _ = file_name.split("_")
    return f"{name}={version.replace('%3a', ':')}"


def _apt(arguments: Sequence[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            ["apt-get", *arguments],
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(
            f"apt-get did not finish within {_SECONDS:g} seconds",
            where="apt-get",
            remedy="check that Debian's archive can be reached",
        ) from None
    if done.returncode != 0:
        complaint = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UnavailableError(
            f"the image's Debian packages cannot be had: {complaint[-1] if complaint else ''}",
            where="apt-get",
            remedy="run `apt-get update`; Debian's main archive must be among apt's sources",
        )
    return done.stdout


def _describe(file: Path) -> DebianPackage:
    fields = subprocess.run(
        ["dpkg-deb", "--show", "--showformat=${Package}\n${Version}\n${Architecture}", str(file)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")
    if len(fields) != 3:
        raise UnavailableError(
            "this is not a Debian package", where=str(file), remedy="remove the file and try again"
        )
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    name, version, architecture = fields
    return DebianPackage(name, version, architecture, digest, file)


def unpack(package: DebianPackage, root: Path) -> None:
    """Unpack a package's files below ``root``, ``/bin`` and its like merged into ``/usr``.

    Owners, times, devices and set-user-ID bits are left behind; an image has none of them.
    """
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package.file)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                _unpack_member(archive, member, root)
    if process.returncode != 0:
        raise UnavailableError(
            "the package cannot be unpacked",
            where=str(package.file),
            remedy="remove the file and try again",
        )


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    name = merged(member.name)
    if not name:
        return
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        path.mkdir(exist_ok=True)
    elif member.issym():
        path.unlink(missing_ok=True)
        path.symlink_to(member.linkname)
    elif member.islnk():
        path.unlink(missing_ok=True)
        path.hardlink_to(root / merged(member.linkname))
    elif member.isfile():
        source = archive.extractfile(member)
        assert source is not None
        _write(path, source, executable=bool(member.mode & 0o111))


def _write(path: Path, source: IO[bytes], *, executable: bool) -> None:
    path.unlink(missing_ok=True)
    with source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    path.chmod(0o755 if executable else 0o644)


def merged(name: str) -> str:
    """A member's path below the root: ``./bin/sh`` is ``usr/bin/sh``.

    Raises:
        UnavailableError: the path leads out of the root.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnavailableError(f"a package holds the path {name!r}", where="dpkg-deb")
    if parts and parts[0] in _MERGED:
        parts.insert(0, "usr")
    return "/".join(parts)


def link_merged(root: Path) -> None:
    """Make the links of the root into ``/usr``."""
    for name in _MERGED:
        if (root / "usr" / name).is_dir():
            (root / name).symlink_to(f"usr/{name}")
