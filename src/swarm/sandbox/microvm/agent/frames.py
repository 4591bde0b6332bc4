"""The one stream between a guest and its host: frames of several kinds, in both directions.

A frame is a byte for its kind, 4 bytes of big-endian length, and that many bytes. ``CONTROL`` is a
JSON object; ``WIRE`` is the handler's wire protocol, cut anywhere; ``STDOUT`` and ``STDERR`` are
what it prints; ``FILE`` is the content of the file that the last ``file`` message named;
``CONNECTION`` begins with the 4-byte number of a connection to the egress proxy.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

CONTROL = 0
WIRE = 1
STDOUT = 2
STDERR = 3
FILE = 4
CONNECTION = 5
KINDS = 6

HEAD = struct.Struct(">BI")
NUMBER = struct.Struct(">I")
FRAME_LIMIT = 64 * 1024
"""Most bytes in one frame; more is cut into several, except for control messages."""
CONTROL_LIMIT = 1024 * 1024
WINDOW = 256 * 1024
"""Bytes that may be under way on one connection, in each direction."""


class FrameError(ValueError):
    """The other end does not keep to the protocol."""


def frame(kind: int, data: bytes) -> bytes:
    return HEAD.pack(kind, len(data)) + data


def frames(kind: int, data: bytes) -> bytes:
    """``data`` in as many frames as it takes."""
    if len(data) <= FRAME_LIMIT:
        return frame(kind, data)
    pieces = range(0, len(data), FRAME_LIMIT)
    return b"".join(frame(kind, data[start : start + FRAME_LIMIT]) for start in pieces)


class FrameReader:
    """Takes bytes as they come, gives frames as they are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> tuple[int, bytes] | None:
        """The next frame, None until it is complete; raises FrameError for what cannot be one."""
        if len(self._buffer) < HEAD.size:
            return None
        kind, size = HEAD.unpack_from(self._buffer)
        if kind >= KINDS or size > (CONTROL_LIMIT if kind == CONTROL else FRAME_LIMIT):
            raise FrameError(f"a frame of kind {kind} and {size} bytes")
        end = HEAD.size + size
        if len(self._buffer) < end:
            return None
        data = bytes(self._buffer[HEAD.size : end])
        del self._buffer[:end]
        return kind, data

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """The complete frames."""
        while (found := self.take()) is not None:
            yield found
