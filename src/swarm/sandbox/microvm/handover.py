"""Takes the files that a guest hands out, message by message, into a folder of the host's.

Every name comes from a guest that is not trusted. Folders are opened one by one without following
links, so nothing lands outside; what is too much, or of another kind, is refused.
"""

from __future__ import annotations

import base64
import os
from typing import Final

from swarm.kernel.json import JsonObject

_NAME_BYTES: Final = 255
_DEPTH: Final = 64
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class HandoverError(ValueError):
    """The guest hands out what it may not."""


class Handover:
    """The files of one invocation.

    Args:
        folder: descriptor of an empty folder.
        bytes_limit: of all files together.
        count_limit: files, folders and links.
    """

    def __init__(self, folder: int, bytes_limit: int, count_limit: int) -> None:
        self._folder = folder
        self._bytes_left = bytes_limit
        self._count_left = count_limit
        self._file = -1
        self._missing = 0
        self.skipped: list[str] = []
        """Names of sockets, pipes and devices, which stay behind."""

    def take_message(self, message: JsonObject) -> None:
        """A ``folder``, ``file``, ``link`` or ``other``.

        Raises:
            HandoverError: it breaks the protocol or passes a limit.
            OSError: the host's disk is full.
        """
        if self._missing:
            raise HandoverError("a file is incomplete")
        parts = _parts(message.get("path"))
        self._count_left -= 1
        if self._count_left < 0:
            raise HandoverError("more files than the limit allows")
        kind = message["event"]
        if kind == "other":
            self.skipped.append(os.fsdecode(b"/".join(parts)))
            return
        parent = self._open_parent(parts[:-1])
        try:
            if kind == "folder":
                os.mkdir(parts[-1], 0o755, dir_fd=parent)
            elif kind == "link":
                os.symlink(_decode(message.get("target")), parts[-1], dir_fd=parent)
            elif kind == "file":
                self._begin_file(parts[-1], parent, message.get("size"))
            else:
                raise HandoverError(f"an unknown kind of file {kind!r}")
        except (FileExistsError, ValueError) as error:
            raise HandoverError(str(error)) from None
        finally:
            os.close(parent)

    def take_content(self, data: bytes) -> None:
        """The next bytes of the file begun last."""
        if len(data) > self._missing:
            raise HandoverError("a file is longer than announced")
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._missing -= len(data)
        if self._missing == 0:
            self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _begin_file(self, name: bytes, parent: int, size: object) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise HandoverError("a file without a size")
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise HandoverError("more bytes of files than the limit allows")
        self._file = os.open(name, _FILE_FLAGS, 0o644, dir_fd=parent)
        self._missing = size
        if size == 0:
            self.close()

    def _open_parent(self, parts: list[bytes]) -> int:
        current = os.dup(self._folder)
        for part in parts:
            try:
                following = os.open(part, _FOLDER_FLAGS, dir_fd=current)
            except OSError as error:
                raise HandoverError(f"a file in no folder: {error.strerror}") from None
            finally:
                os.close(current)
            current = following
        return current


def _parts(value: object) -> list[bytes]:
    parts = _decode(value).split(b"/")
    if len(parts) > _DEPTH or any(part in (b"", b".", b"..") for part in parts):
        raise HandoverError("a path that leads elsewhere")
    if any(len(part) > _NAME_BYTES for part in parts):
        raise HandoverError("a name that is too long")
    return parts


def _decode(value: object) -> bytes:
    try:
        data = base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except ValueError:  # Not base64, or not even ASCII.
        data = b""
    if not data or b"\0" in data:
        raise HandoverError("a path that is none")
    return data
