"""Streams between two hosts that can both reach the database, and perhaps nothing else.

What a host writes to another is notified on the channel of that host (LISTEN/NOTIFY), cut into
messages that fit. PostgreSQL hands the messages of one session on in order; every message is
numbered all the same, and a stream in which one is missing ends, as a connection would.

    <sender> <direction><number> <sequence> <kind>        the first line of a message
    <text>                                                the rest; only of kind "data"

``direction`` is ``>`` from whoever opened the stream and ``<`` from the other side; ``number`` is
chosen by the opener. ``kind`` is ``data`` or ``end``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from swarm.dispatch.messages import MAX_MESSAGE_BYTES

MAX_PAYLOAD_BYTES = 7_900
"""Of one notification; PostgreSQL takes less than 8000."""
_HEADER_BYTES = 100
_MAX_CHARACTERS = (MAX_PAYLOAD_BYTES - _HEADER_BYTES) // 4

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LinkKey: TypeAlias = tuple[str, str]
"""The other host, and the stream's direction and number as the other host writes them."""
_OPENED: Final = "<"
_ACCEPTED: Final = ">"


def channel_of(host_id: str) -> str:
    return f"swarm_{host_id}"


class Outbox:
    """Messages that wait to be notified, in order."""

    def __init__(self) -> None:
        self._messages: deque[tuple[str, str, _LinkTransport | None]] = deque()
        self._arrived = asyncio.Event()

    def put(self, channel: str, payload: str, transport: _LinkTransport | None = None) -> None:
        self._messages.append((channel, payload, transport))
        self._arrived.set()

    async def take(self, limit: int) -> tuple[list[str], list[str]]:
        """Wait for messages; their channels and payloads."""
        while not self._messages:
            self._arrived.clear()
            await self._arrived.wait()
        channels: list[str] = []
        payloads: list[str] = []
        while self._messages and len(channels) < limit:
            channel, payload, transport = self._messages.popleft()
            if transport is not None:
                transport.sent(len(payload))
            channels.append(channel)
            payloads.append(payload)
        return channels, payloads

    @property
    def is_empty(self) -> bool:
        return not self._messages

    def clear(self) -> None:
        self._messages.clear()


class Links:
    """The streams of one host."""

    def __init__(
        self,
        own: str,
        outbox: Outbox,
        accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    ) -> None:
        """``accept`` serves a stream that another host opened."""
        self._own = own
        self._outbox = outbox
        self._accept = accept
        self._links: dict[LinkKey, _LinkTransport] = {}
        self._number = 0
        self._serving: set[asyncio.Future[None]] = set()

    def open(self, other: str) -> Streams:
        """Begin a stream to another host; whether it is there shows when it answers."""
        self._number += 1
        return self._make((other, f"{_OPENED}{self._number}"), f"{_ACCEPTED}{self._number}")

    def heard(self, payload: str) -> None:
        """Take in a message on this host's channel."""
        header, _, text = payload.partition("\n")
        words = header.split(" ")
        if len(words) != 4 or not words[2].isdecimal():
            return  # not from a host
        sender, number, sequence, kind = words
        key = (sender, number)
        link = self._links.get(key)
        if link is None:
            if not (number.startswith(_ACCEPTED) and sequence == "0" and kind == "data"):
                return  # a stream that has ended here
            streams = self._make(key, _OPENED + number[1:])
            serving = asyncio.ensure_future(self._accept(*streams))
            self._serving.add(serving)
            serving.add_done_callback(self._serving.discard)
            link = self._links[key]
        link.heard(int(sequence), kind, text)

    @property
    def others(self) -> frozenset[str]:
        """The hosts with which there are streams."""
        return frozenset(other for other, _ in self._links)

    def lost(self, other: str) -> None:
        """A host is gone: its streams end."""
        for key, link in tuple(self._links.items()):
            if key[0] == other:
                link.abort()

    def reset(self) -> None:
        """Messages may have been lost: every stream ends."""
        for link in tuple(self._links.values()):
            link.abort()

    async def close(self) -> None:
        self.reset()
        if self._serving:
            await asyncio.wait(self._serving)

    def _make(self, key: LinkKey, mark: str) -> Streams:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport = _LinkTransport(self, key, f"{self._own} {mark}", protocol)
        self._links[key] = transport
        protocol.connection_made(transport)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _send(self, transport: _LinkTransport, other: str, payload: str) -> None:
        self._outbox.put(channel_of(other), payload, transport)

    def _forget(self, key: LinkKey) -> None:
        self._links.pop(key, None)


class _LinkTransport(asyncio.Transport):
    """One side of a stream."""

    def __init__(
        self, links: Links, key: LinkKey, mark: str, protocol: asyncio.StreamReaderProtocol
    ) -> None:
        super().__init__()
        self._links = links
        self._key = key
        self._mark = mark
        self._protocol = protocol
        self._written = 0
        self._read = 0
        self._unsent = 0
        self._closing = False

    # What asyncio asks of a transport

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send whole lines: they are text, and are cut between characters only."""
        if self._closing:
            return
        text = bytes(data).decode()
        for start in range(0, len(text), _MAX_CHARACTERS):
            self._put("data", text[start : start + _MAX_CHARACTERS])

    def close(self) -> None:
        if not self._closing:
            self._put("end", "")
            self.abort()

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._links._forget(self._key)
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        """What comes is bounded by what the other side may be behind."""

    def resume_reading(self) -> None:
        """See :meth:`pause_reading`."""

    # What the links tell it

    def heard(self, sequence: int, kind: str, text: str) -> None:
        if sequence != self._read or kind == "end":
            self.abort()
            return
        self._read += 1
        self._protocol.data_received(text.encode())

    def sent(self, size: int) -> None:
        self._unsent -= size

    def _put(self, kind: str, text: str) -> None:
        payload = f"{self._mark} {self._written} {kind}\n{text}"
        self._written += 1
        self._unsent += len(payload)
        self._links._send(self, self._key[0], payload)
