"""The initial RAM file system of a guest: busybox, the drivers, and the init script.

Format: ``Documentation/driver-api/early-userspace/buffer-format.rst`` of the kernel ("newc").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from swarm.kernel.errors import UnavailableError
from swarm.sandbox import microvm

MODULES: Final = (
    "virtio_mmio",
    "virtio_blk",
    "virtio_console",
    "squashfs",
    "overlay",
    "vmw_vsock_virtio_transport",
)
"""Drivers that a guest loads, with those that they depend on: disks, the channel to the host, the
file systems, and Firecracker's channel."""
APPLETS: Final = ("sh", "mount", "insmod", "cat", "switch_root", "poweroff")
INIT: Final = Path(microvm.__file__).parent / "initramfs" / "init"

_FOLDER: Final = 0o040755
_FILE: Final = 0o100755
_LINK: Final = 0o120777
_DEVICE: Final = 0o020600
_CONSOLE: Final = (5, 1)


def initramfs(busybox: bytes, modules: Sequence[tuple[str, bytes]]) -> bytes:
    """The archive.

    Args:
        busybox: the program, statically linked.
        modules: name and content, in the order of loading.
    """
    order = "".join(f"{name}\n" for name, _ in modules).encode()
    folders = ("bin", "dev", "modules", "new", "proc", "sys")
    archive = _Archive()
    for name in folders:
        archive.add(name, _FOLDER)
    archive.add("dev/console", _DEVICE, device=_CONSOLE)
    archive.add("bin/busybox", _FILE, busybox)
    for applet in APPLETS:
        archive.add(f"bin/{applet}", _LINK, b"busybox")
    for name, content in modules:
        archive.add(f"modules/{name}.ko", _FILE, content)
    archive.add("modules/order", _FILE, order)
    archive.add("init", _FILE, INIT.read_bytes())
    return archive.finish()


class _Archive:
    def __init__(self) -> None:
        self._data = bytearray()
        self._count = 0

    def add(
        self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        self._count += 1
        text = name.encode() + b"\0"
        fields = [self._count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(text), 0]
        self._data += b"070701" + b"".join(b"%08X" % field for field in fields) + text
        self._pad()
        self._data += content
        self._pad()

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return bytes(self._data)

    def _pad(self) -> None:
        self._data += bytes(-len(self._data) % 4)


def find_modules(folder: Path, names: Iterable[str] = MODULES) -> list[tuple[str, bytes]]:
    """Drivers below ``folder`` with those that they depend on, in the order of loading.

    Names that the kernel has built in, or does not have, are left out.

    Raises:
        UnavailableError: the modules are compressed, which the guest's insmod cannot read.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.ko*")):
        if path.suffix != ".ko":
            raise UnavailableError(
                "the kernel's modules are compressed",
                where=str(path),
                remedy="build the image on Debian 12, whose kernel leaves them uncompressed",
            )
        files[path.stem.replace("-", "_")] = path
    found: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in found or name not in files:
            return
        content = files[name].read_bytes()
        for dependency in depends_of(content):
            visit(dependency)
        found[name] = content

    for name in names:
        visit(name)
    return list(found.items())


def depends_of(module: bytes) -> list[str]:
    """The modules that one says (in ``.modinfo``) it depends on."""
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    names = match[1].decode("ascii").split(",") if match else []
    return [name.replace("-", "_") for name in names if name]
