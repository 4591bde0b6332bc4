"""The host's end of the stream to a guest's agent: frames told apart, everything bounded.

The guest is not trusted: what it sends beyond the protocol ends the machine, it harms nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from swarm.kernel.errors import InvalidError
from swarm.kernel.json import JsonObject, JsonValue, dump_bytes, loads
from swarm.sandbox.microvm.agent.frames import (
    CONTROL,
    FrameError,
    FrameReader,
    frame,
    frames,
)


class GuestStream(asyncio.Protocol):
    """One connection to one guest."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._takers: dict[int, Callable[[bytes], None]] = {}
        self._messages: asyncio.Queue[JsonObject] = asyncio.Queue()
        self._on_message: Callable[[JsonObject], None] | None = None
        self.closed: asyncio.Future[str] = loop.create_future()
        """Settled with the reason when the stream is of no more use."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._lose("the virtual machine ended")

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._take_frames()

    def on_frames(self, kind: int, take: Callable[[bytes], None]) -> None:
        """Have frames of ``kind`` given to ``take``."""
        self._takers[kind] = take

    def on_messages(self, take: Callable[[JsonObject], None]) -> None:
        """Have control messages given to ``take``, no more to :meth:`message`."""
        self._on_message = take

    def send(self, kind: int, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames(kind, data))

    def send_control(self, **message: JsonValue) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(CONTROL, dump_bytes(message)))

    @property
    def unsent_bytes(self) -> int:
        """What the guest has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def message(self) -> JsonObject:
        """The next control message.

        Raises:
            EOFError: there will be none.
        """
        waiting = asyncio.ensure_future(self._messages.get())
        either: list[asyncio.Future[Any]] = [waiting, self.closed]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            raise EOFError(self.closed.result())
        return waiting.result()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def end(self) -> None:
        """Let it come to an end once what has arrived is taken: its process is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._lose("the host closed it")

    def break_off(self, reason: str) -> None:
        """Give up on a guest that breaks the protocol."""
        self._lose(reason)
        if self._transport is not None:
            self._transport.abort()

    def _lose(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)

    def _take_frames(self) -> None:
        try:
            for kind, data in self._reader:
                if self.closed.done():
                    return
                self._take(kind, data)
        except (FrameError, InvalidError) as error:
            self.break_off(f"the virtual machine broke its protocol: {error}")

    def _take(self, kind: int, data: bytes) -> None:
        if kind != CONTROL:
            taker = self._takers.get(kind)
            if taker is None:
                raise FrameError(f"a frame of kind {kind}, which nobody asked for")
            taker(data)
            return
        message = loads(data)
        if not isinstance(message, dict):
            raise FrameError("a control message that is no object")
        if self._on_message is not None:
            self._on_message(message)
        else:
            self._messages.put_nowait(message)
