"""The root that all sandboxes of one zygote start from, built once.

The zygote enters a mount namespace of its own and lays out a small tmpfs: read-only binds of
``/usr`` and of interpreters, a made-up ``/etc``, the harmless devices, and empty places for what
each sandbox adds. It is then made read-only.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from . import syscalls
from .steps import LayerError, layer

_INERT = (
    syscalls.MOUNT_ATTR_RDONLY
    | syscalls.MOUNT_ATTR_NOSUID
    | syscalls.MOUNT_ATTR_NODEV
    | syscalls.MOUNT_ATTR_NOEXEC
)

MASK = "outputs/mask"
"""What covers a file: a null device that cannot be opened. Each sandbox covers its folder."""


def leave_mounts() -> None:
    """Leave the host's mount namespace."""
    with layer("mount-namespace"):
        syscalls.unshare(syscalls.CLONE_NEWNS)
        # Slave, not private: what the host unmounts must not be kept busy by this namespace.
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)


def write_own_mapping(process: str, inside: int, uid: int, gid: int) -> None:
    """Map the caller's one uid and gid into the user namespace that it has just entered."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside} {uid} 1"),
        ("gid_map", f"{inside} {gid} 1"),
    ):
        write_text(f"{process}/{name}", text)


def write_text(path: str, text: str) -> None:
    """Write a kernel file in one ``write``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def build(configuration: dict[str, Any]) -> None:
    """Lay out the template at ``configuration["staging"]`` (an empty folder of the host)."""
    staging: str = configuration["staging"]
    with layer("root"):
        syscalls.mount(
            "swarm",
            staging,
            "tmpfs",
            syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOATIME,
            "mode=0755,size=16m,nr_inodes=4096",
        )
        for path in configuration["directories"]:
            _make_directories(staging, path)
        for link, target in configuration["links"]:
            _make_directories(staging, os.path.dirname(link))
            os.symlink(target, staging + link)
        for path, text in configuration["files"].items():
            _write_file(staging, path, text.encode())
        for source, path in configuration["copies"]:
            with open(source, "rb") as file:
                _write_file(staging, path, file.read())
        for source, path in configuration["binds"]:
            _bind_shared(staging, source, path)
        for path in configuration["devices"]:
            _bind_device(staging, path, path, _INERT & ~syscalls.MOUNT_ATTR_NODEV)
        _bind_device(staging, "/dev/null", f"/{MASK}", _INERT)
    with layer("root"):
        _remount_read_only(staging)


def _bind_shared(staging: str, source: str, path: str) -> None:
    mode = os.stat(source).st_mode
    if mode & 0o005 != 0o005:
        raise LayerError(
            "root", 13, f"{source} must be readable by everyone (mode {stat.filemode(mode)})"
        )
    if stat.S_ISDIR(mode):
        _make_directories(staging, path)
    else:
        _write_file(staging, path, b"")
    descriptor = syscalls.clone_tree(source, recursive=True)
    attributes = _INERT & ~syscalls.MOUNT_ATTR_NOEXEC
    syscalls.set_mount_attributes(descriptor, attributes, recursive=True)
    syscalls.attach(descriptor, staging + path)
    os.close(descriptor)


def _bind_device(staging: str, source: str, path: str, attributes: int) -> None:
    """Read-only keeps its times and attributes; what is written to a device passes all the same."""
    _write_file(staging, path, b"")
    descriptor = syscalls.clone_tree(source, recursive=False)
    syscalls.set_mount_attributes(descriptor, attributes, recursive=False)
    syscalls.attach(descriptor, staging + path)
    os.close(descriptor)


def _remount_read_only(staging: str) -> None:
    """Only the root itself: what is mounted below has its own attributes."""
    descriptor = os.open(staging, os.O_PATH | os.O_CLOEXEC)
    try:
        syscalls.set_mount_attributes(descriptor, _INERT, recursive=False)
    finally:
        os.close(descriptor)


def _make_directories(staging: str, path: str) -> None:
    os.makedirs(staging + path, mode=0o755, exist_ok=True)


def _write_file(staging: str, path: str, data: bytes) -> None:
    _make_directories(staging, os.path.dirname(path))
    with open(staging + path, "wb") as file:
        file.write(data)
