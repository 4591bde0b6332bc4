"""Hands the files below ``/outputs`` to the host, as messages."""

from __future__ import annotations

import base64
import os
import stat

from .frames import FILE, FRAME_LIMIT
from .port import Port

FOLDER = "/outputs"


class OutputsFolder:
    """The folder while it is empty. On a tmpfs, a folder's size grows with each name in it."""

    def __init__(self) -> None:
        self._descriptor = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size

    def has_any(self) -> bool:
        return os.fstat(self._descriptor).st_size != self._size


def send_outputs(port: Port, size_limit: int, count_limit: int) -> None:
    """Send folders, files and links, parents first. Other kinds are named only."""
    size_left, count_left = size_limit, count_limit + 16
    folders = [""]
    while folders:
        folder = folders.pop()
        for name in sorted(os.listdir(os.path.join(FOLDER, folder))):
            path = os.path.join(folder, name)
            full = os.path.join(FOLDER, path)
            status = os.lstat(full)
            count_left -= 1
            size_left -= status.st_size if stat.S_ISREG(status.st_mode) else 0
            if count_left < 0 or size_left < 0:
                return  # The host counts too; a file system's own limits come first.
            encoded = base64.b64encode(os.fsencode(path)).decode()
            if stat.S_ISDIR(status.st_mode):
                port.send_control(event="folder", path=encoded)
                folders.append(path)
            elif stat.S_ISLNK(status.st_mode):
                target = base64.b64encode(os.fsencode(os.readlink(full))).decode()
                port.send_control(event="link", path=encoded, target=target)
            elif stat.S_ISREG(status.st_mode):
                port.send_control(event="file", path=encoded, size=status.st_size)
                _send_content(port, full, status.st_size)
            else:
                port.send_control(event="other", path=encoded)
            port.drain()


def _send_content(port: Port, path: str, size: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        while size > 0:
            data = os.read(descriptor, min(size, FRAME_LIMIT))
            data = data or bytes(min(size, FRAME_LIMIT))
            size -= len(data)
            port.send(FILE, data)
            if port.is_busy:
                port.drain()
    finally:
        os.close(descriptor)
