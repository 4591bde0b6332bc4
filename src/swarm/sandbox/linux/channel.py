"""A sandbox's own channel: its plan goes in, then it says that it is ready, or why not."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from swarm.kernel.json import JsonObject, dump_bytes, loads
from swarm.sandbox.linux.zygote_client import descriptors_of

_CHUNK: Final = 64 * 1024
_LINE_LIMIT: Final = 1024 * 1024
_DESCRIPTORS: Final = 8


class Channel:
    """The host's end. What arrives was sent before the package's code could run."""

    def __init__(self) -> None:
        self._host, self._guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._host.setblocking(False)
        self._buffer = b""
        self._descriptors: list[int] = []
        self._is_open = True
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[tuple[JsonObject, list[int]] | None] = loop.create_future()
        """The ready or failed message with its descriptors; None when neither came."""

    @property
    def guest_descriptor(self) -> int:
        return self._guest.fileno()

    def give_up_guest(self) -> None:
        """Close the guest's end, which has been passed on."""
        self._guest.close()

    async def send_plan(self, plan: JsonObject) -> None:
        """Write the plan and listen to what comes of it."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._host, self._receive)
        try:
            await loop.sock_sendall(self._host, dump_bytes(plan) + b"\n")
        except ConnectionError:
            return  # The sandbox failed before it read its plan; the reader meets the end.

    def drain(self) -> None:
        """Take what the sandbox said before it ended."""
        if self._is_open:
            self._receive()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self._host)
        self._host.close()
        self._guest.close()
        if not self.first.done():
            self.first.set_result(None)

    def _receive(self) -> None:
        space = socket.CMSG_SPACE(_DESCRIPTORS * 4)
        try:
            data, ancillary, _, _ = self._host.recvmsg(_CHUNK, space, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except ConnectionError:
            data, ancillary = b"", []
        self._descriptors += descriptors_of(ancillary)
        self._buffer += data
        if not data or len(self._buffer) > _LINE_LIMIT:
            self.close()
            return
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._take(loads(line))

    def _take(self, message: JsonObject) -> None:
        if not self.first.done():
            self.first.set_result((message, self._descriptors))
            self._descriptors = []
