"""The guest's image, of Debian packages: kernel, initial RAM file system, root file system.

``build_image`` makes it, ``find_image`` finds it. The same packages give the same bytes; the
manifest beside them says which they were.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from swarm.kernel.errors import InvalidError, SandboxUnavailable, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.json import JsonObject, dump_bytes, loads
from swarm.kernel.settings import Settings
from swarm.sandbox.microvm import debian
from swarm.sandbox.microvm.initramfs import find_modules, initramfs
from swarm.sandbox.microvm.squashfs import EPOCH, write_squashfs

RECIPE: Final = 2
"""Raised whenever the same packages give another image."""
KERNEL_PACKAGE: Final = "linux-image-cloud-amd64"
SEEDS: Final = (
    "bash",
    "busybox-static",
    "ca-certificates",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "git",
    "grep",
    "gzip",
    "lz4",
    "nodejs",
    "python3",
    "sed",
    "tar",
)
EXCLUDED: Final = (
    *("adduser", "base-files", "cpio", "debconf", "debianutils", "dpkg", "initramfs-tools.*"),
    *("klibc-utils", "kmod", "libklibc", "libkmod2", "liberror-perl", "libperl.*", "linux-base"),
    *("linux-image-cloud-amd64", "logsave", "libsemanage.*", "libsepol2", "mawk", "openssl"),
    *("passwd", "perl.*", "readline-common", "udev", "git-man", "libpam.*", "gcc-.*-base"),
    *("libaudit.*", "libdb.*", "libgdbm.*"),
)
"""What installing packages needs, and their programs do not (git's Perl scripts aside)."""
_DROPPED: Final = (
    *("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian"),
    *("usr/share/bug", "usr/share/gitweb", "usr/share/perl5", "usr/share/zoneinfo/right"),
    *("usr/lib/systemd", "usr/share/bash-completion", "usr/share/pixmaps", "var", "boot"),
    *("usr/lib/python3.11/test", "usr/lib/python3/dist-packages"),
)
_MOUNT_POINTS: Final = (
    *("dev", "proc", "sys", "tmp", "run", "swarm", "package", "environment", "inputs", "outputs"),
    "var",
)
_PASSWD: Final = (
    "root:x:0:0:root:/:/usr/sbin/nologin\n"
    "agent:x:1000:1000:agent:/tmp:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
)
_ETC: Final = {
    "passwd": _PASSWD,
    "group": "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n",
    "hostname": "sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
    "gitconfig": "[safe]\n\tdirectory = *\n",
}
_FILES: Final = ("kernel", "vmlinux", "initramfs", "root.squashfs")
_MANIFEST: Final = "manifest.json"


class Image(Struct, frozen=True):
    """A built image."""

    folder: Path
    digest: str
    """Of its manifest, which holds the digests of everything else."""
    python_version: str
    """Such as ``3.11``."""
    kernel_version: str

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def vmlinux(self) -> Path:
        """The kernel uncompressed, as Firecracker wants it."""
        return self.folder / "vmlinux"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs"

    @property
    def root(self) -> Path:
        return self.folder / "root.squashfs"


def image_folder(settings: Settings) -> Path:
    """Where the image is looked for, and built."""
    if settings.microvm_image is not None:
        return settings.microvm_image.expanduser().absolute()
    return Home(settings.home.expanduser().absolute()).cache / "microvm" / "image"


def find_image(settings: Settings) -> Image:
    """The image that was built.

    Raises:
        SandboxUnavailable: there is none, or it is not of this version.
    """
    folder = image_folder(settings)
    remedy = "`swarm sandbox build-image`"
    try:
        data = (folder / _MANIFEST).read_bytes()
        manifest = loads(data)
    except FileNotFoundError:
        raise SandboxUnavailable(
            "there is no image for virtual machines yet", where=str(folder), remedy=remedy
        ) from None
    except (OSError, InvalidError) as error:
        raise SandboxUnavailable(
            f"the image cannot be read: {error}", where=str(folder), remedy=remedy
        ) from None
    if not isinstance(manifest, dict) or manifest.get("recipe") != RECIPE:
        raise SandboxUnavailable(
            "the image was built by another version of Swarm", where=str(folder), remedy=remedy
        )
    return Image(
        folder,
        hashlib.sha256(data).hexdigest(),
        str(manifest["python"]),
        str(manifest["kernel"]),
    )


def build_image(
    folder: Path, downloads: Path, on_progress: Callable[[str], None] = lambda text: None
) -> Image:
    """Build the image in ``folder``, whole or not at all; one that is there is replaced.

    Args:
        folder: of the image.
        downloads: keeps the packages fetched; those that are there are not fetched again.
        on_progress: gets a line for each stage.

    Raises:
        UnavailableError: a package cannot be had, or a program is missing.
    """
    on_progress("fetching Debian packages")
    packages = debian.fetch([*SEEDS, KERNEL_PACKAGE], EXCLUDED, downloads)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".image-") as name:
        work = Path(name)
        target = work / "image"
        target.mkdir()
        on_progress(f"unpacking {len(packages)} packages")
        versions = _build(packages, work, target, on_progress)
        manifest: JsonObject = {
            "recipe": RECIPE,
            **versions,
            "packages": [package.as_json() for package in packages],
            "files": {name: _digest(target / name) for name in _FILES},
        }
        (target / _MANIFEST).write_bytes(dump_bytes(manifest) + b"\n")
        for path in (target, *target.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        _replace(folder, target, work)
    return find_image(Settings(home=folder, microvm_image=folder))


def _build(
    packages: Sequence[debian.DebianPackage],
    work: Path,
    target: Path,
    on_progress: Callable[[str], None],
) -> dict[str, str]:
    """Write the image's files; returns the versions of what matters."""
    root, kernel = work / "root", work / "kernel"
    for package in packages:
        is_kernel = package.name.startswith("linux-image-")
        debian.unpack(package, kernel if is_kernel else root)
    vmlinuz = sorted((kernel / "boot").glob("vmlinuz-*"))
    if len(vmlinuz) != 1:
        raise UnavailableError(
            "the packages hold no kernel, or several", where=KERNEL_PACKAGE, remedy="report this"
        )
    version = vmlinuz[0].name.removeprefix("vmlinuz-")
    shutil.copyfile(vmlinuz[0], target / "kernel")
    _extract_vmlinux(vmlinuz[0], target / "vmlinux", root)
    modules = find_modules(kernel / "usr" / "lib" / "modules" / version)
    busybox = (root / "usr" / "bin" / "busybox").read_bytes()
    (target / "initramfs").write_bytes(initramfs(busybox, modules))
    on_progress("compiling Python's library")
    python = _finish_root(root)
    on_progress("writing the root file system")
    write_squashfs({"": root}, target / "root.squashfs")
    return {"kernel": version, "python": python}


def _finish_root(root: Path) -> str:
    """Do what the packages' scripts would have done; returns Python's version."""
    debian.link_merged(root)
    for name in _DROPPED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in _MOUNT_POINTS:
        (root / name).mkdir(exist_ok=True)
    (root / "var" / "tmp").symlink_to("/tmp")
    # Node looks for modules in every folder above the importing one.
    (root / "node_modules").symlink_to("/environment/node_modules")
    for name, text in _ETC.items():
        (root / "etc" / name).write_text(text)
    _bundle_certificates(root)
    if not (root / "usr" / "bin" / "sh").exists():
        (root / "usr" / "bin" / "sh").symlink_to("dash")
    version = (root / "usr" / "bin" / "python3").readlink().name.removeprefix("python")
    _compile(root, version)
    return version


def _bundle_certificates(root: Path) -> None:
    folder = root / "etc" / "ssl" / "certs"
    folder.mkdir(parents=True, exist_ok=True)
    certificates = sorted((root / "usr" / "share" / "ca-certificates").rglob("*.crt"))
    bundle = b"".join(path.read_bytes().rstrip(b"\n") + b"\n" for path in certificates)
    (folder / "ca-certificates.crt").write_bytes(bundle)


def _extract_vmlinux(vmlinuz: Path, target: Path, root: Path) -> None:
    """Unpack a kernel, whose header says where its payload is.

    Source: ``Documentation/x86/boot.rst`` of the kernel (``payload_offset``).
    """
    data = vmlinuz.read_bytes()
    setup = (data[0x1F1] or 4) + 1
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = setup * 512 + offset
    # The last 4 bytes are the size when unpacked.
    command = [*_run_inside(root), str(root / "usr" / "bin" / "lz4"), "-d", "-c"]
    payload = data[start : start + length - 4]
    done = subprocess.run(command, input=payload, capture_output=True, check=False)
    if not done.stdout.startswith(b"\x7fELF"):
        raise UnavailableError(
            "the kernel cannot be unpacked", where=str(vmlinuz), remedy="report this"
        )
    target.write_bytes(done.stdout)


def _run_inside(root: Path) -> list[str]:
    """What runs a program of the image on this machine."""
    libraries = [str(root / "usr" / "lib" / "x86_64-linux-gnu"), str(root / "usr" / "lib")]
    loader = str(root / "usr" / "lib64" / "ld-linux-x86-64.so.2")
    return [loader, "--library-path", ":".join(libraries)]


def _compile(root: Path, version: str) -> None:
    """Compile Python's library with the image's own Python, so that no guest has to."""
    library = root / "usr" / "lib" / f"python{version}"
    command = [
        *_run_inside(root),
        str(root / "usr" / "bin" / f"python{version}"),
        *("-m", "compileall", "-f", "-q", "--invalidation-mode", "unchecked-hash"),
        *("-s", str(root), "-p", "/", str(library)),
    ]
    environment = {
        "LC_ALL": "C",
        "PATH": "/usr/bin:/bin",
        "PYTHONHOME": str(root / "usr"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": str(EPOCH),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not any((library / "__pycache__").glob("*.pyc")):
        raise UnavailableError(
            f"the image's Python cannot run: {done.stderr.strip()[-500:]}",
            where=str(library),
            remedy="build on an x86-64 machine",
        )


def _replace(folder: Path, target: Path, work: Path) -> None:
    try:
        if folder.exists():
            folder.rename(work / "previous")
        target.rename(folder)
    except OSError as error:
        raise UnavailableError(
            f"the image cannot be put in its place: {error.strerror}",
            where=str(folder),
            remedy="choose a folder of its own that you may write",
        ) from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
