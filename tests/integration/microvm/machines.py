"""What the tests of virtual machines share: an image built once, and packages known by content."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from swarm.kernel.errors import InvalidError, SwarmError
from swarm.kernel.json import loads
from swarm.kernel.settings import Settings
from swarm.sandbox import microvm
from swarm.sandbox.microvm.image import RECIPE, build_image, find_image
from swarm.sandbox.ports import Program

CACHE = Path(__file__).parents[3] / ".cache" / "microvm"
"""Packages, images and snapshots, kept from run to run; ``make clean`` removes them."""
_RECIPE = ("debian.py", "image.py", "initramfs.py", "initramfs/init", "squashfs.py")


def missing_program() -> str | None:
    """A program without which no machine runs here."""
    needed = ("qemu-system-x86_64", "sqfstar", "dpkg-deb", "apt-get", "setpriv")
    return next((name for name in needed if shutil.which(name) is None), None)


@contextmanager
def cache_lock() -> Iterator[None]:
    """One process at a time works on what is shared."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def image_settings() -> Settings:
    """Settings with the image, built where it is not there yet; skips where it cannot be."""
    if (name := missing_program()) is not None:
        pytest.skip(f"{name} is missing")
    source = Path(microvm.__file__).parent
    digest = hashlib.sha256(b"".join((source / name).read_bytes() for name in _RECIPE))
    folder = CACHE / f"image-{digest.hexdigest()[:16]}"
    settings = Settings(
        home=CACHE / "home",
        microvm_image=folder,
        microvm_accelerator="tcg",
        microvm_boot_seconds=300,
    )
    with cache_lock():
        try:
            if not is_intact(folder):
                for old in CACHE.glob("image-*"):
                    shutil.rmtree(old)
                build_image(folder, CACHE / "downloads")
            find_image(settings)
        except SwarmError as error:
            pytest.skip(f"no image for virtual machines: {error}")
    return settings


def is_intact(folder: Path) -> bool:
    """Whether an image is there whose files are those that its manifest names."""
    try:
        manifest: Any = loads((folder / "manifest.json").read_bytes())
        found = {}
        for name in manifest["files"]:
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, InvalidError):
        return False
    same: bool = found == manifest["files"] and manifest["recipe"] == RECIPE
    return same


def program(
    folder: Path,
    files: Mapping[str, str],
    runtime: Literal["python", "node", "command"],
    entry: str,
) -> Program:
    """A package with these files, whose digest depends on nothing else."""
    digest = hashlib.sha256()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        path.chmod(0o755 if text.startswith("#!") else 0o644)
        digest.update(f"{name}\0{text}\0".encode())
    return Program(runtime, (entry,), folder, digest.hexdigest())
