"""One call to a guest behind a stream: wire, output, and connections to the egress proxy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

from swarm.kernel.json import JsonObject
from swarm.sandbox.egress.proxy import EgressProxy
from swarm.sandbox.log_lines import LineCutter, LogBudget
from swarm.sandbox.microvm.agent.frames import (
    CONNECTION,
    FRAME_LIMIT,
    NUMBER,
    STDERR,
    STDOUT,
    WINDOW,
    WIRE,
)
from swarm.sandbox.microvm.stream import GuestStream
from swarm.sandbox.ports import GuestServices, Limits
from swarm.sandbox.wire import Answer, HostWire

_CHUNK: Final = FRAME_LIMIT - NUMBER.size
_CONNECTIONS: Final = 128


class _WireTransport(asyncio.Transport):
    """What a :class:`HostWire` writes to: the stream's frames of kind ``WIRE``."""

    def __init__(self, stream: GuestStream, answer: asyncio.Future[Answer]) -> None:
        super().__init__()
        self._stream = stream
        self._answer = answer
        self._is_closing = False
        answer.add_done_callback(lambda _: stream.resume())

    def write(self, data: Any) -> None:
        self._stream.send(WIRE, bytes(data))

    def get_write_buffer_size(self) -> int:
        return self._stream.unsent_bytes

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        self._is_closing = True

    def pause_reading(self) -> None:
        # With its answer the wire is through, and the stream has more to say.
        if not self._answer.done():
            self._stream.pause()

    def resume_reading(self) -> None:
        self._stream.resume()


class StreamSession:
    """The host's side of a call. Use: make one, ``call``, ``drain``, ``close``."""

    def __init__(self, stream: GuestStream, limits: Limits) -> None:
        self.limits = limits
        self.budget = LogBudget(limits.log_bytes)
        self._services: GuestServices | None = None
        self._early: list[tuple[str, str, str]] = []
        self._wire = HostWire(limits, self.budget)
        self._wire.connection_made(_WireTransport(stream, self._wire.answer))
        stream.on_frames(WIRE, self._wire.data_received)
        self._cutters = []
        for kind, name, level in (
            (STDOUT, "stdout", "info"),
            (STDERR, "stderr", "warning"),
        ):
            emit = self._emitter(name, level)
            cutter = LineCutter(limits.log_line_bytes, self.budget, emit)
            stream.on_frames(kind, cutter.feed)
            self._cutters.append(cutter)

    def call(
        self,
        entry: tuple[str, ...],
        inputs: JsonObject,
        context: JsonObject,
        services: GuestServices,
    ) -> asyncio.Future[Answer]:
        """Send the call; its answer."""
        self._services = services
        for line in self._early:
            services.log(*line)
        self._wire.call(entry, inputs, context, services)
        return self._wire.answer

    def wire_closed(self) -> None:
        self._wire.connection_lost(None)

    def drain(self) -> None:
        """Log what has no line end yet, and what was dropped."""
        for cutter in self._cutters:
            cutter.close()
        if self.budget.dropped and self._services is not None:
            text = (
                f"{self.budget.dropped} bytes of log were dropped: "
                f"the limit is {self.limits.log_bytes} bytes"
            )
            self._services.log("log", "warning", text)

    def close(self) -> None:
        self._wire.close()

    def _emitter(self, stream: str, level: str) -> Callable[[str], None]:
        def emit(line: str) -> None:
            if self._services is None:
                self._early.append((stream, level, line))  # Bounded by the budget.
            else:
                self._services.log(stream, level, line)

        return emit


class _Relay(asyncio.Protocol):
    """The proxy's end of one connection of the guest's."""

    def __init__(self, number: int, stream: GuestStream, on_lost: Callable[[int], None]) -> None:
        self._number = number
        self._stream = stream
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._credit = WINDOW
        self._taken = 0
        self._early = bytearray()
        self.is_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        self.take(b"")
        if self.is_ended:
            transport.close()

    def data_received(self, data: bytes) -> None:
        """From the proxy to the guest, as far as the guest has room."""
        head = NUMBER.pack(self._number)
        for start in range(0, len(data), _CHUNK):
            self._stream.send(CONNECTION, head + data[start : start + _CHUNK])
        self._credit -= len(data)
        if self._credit <= 0 and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._stream.send_control(op="close", number=self._number)
        self._on_lost(self._number)

    def resume_writing(self) -> None:
        """The proxy has taken what was written; the guest may send as much again."""
        taken, self._taken = self._taken, 0
        if taken:
            self._stream.send_control(op="credit", number=self._number, size=taken)

    def credit(self, size: int) -> None:
        self._credit += size
        if self._credit > 0 and self._transport is not None:
            self._transport.resume_reading()

    def take(self, data: bytes) -> None:
        """From the guest to the proxy."""
        self._early += data
        if self._transport is None or self._transport.is_closing() or not self._early:
            return
        data, self._early = bytes(self._early), bytearray()
        self._taken += len(data)
        self._transport.write(data)
        if self._transport.get_write_buffer_size() == 0:
            self.resume_writing()

    @property
    def is_overfull(self) -> bool:
        """Whether the guest sent more than it had room for."""
        return len(self._early) + self._taken > 2 * WINDOW

    def end(self) -> None:
        self.is_ended = True
        if self._transport is not None:
            self._transport.close()


class ProxyRelay:
    """Carries a guest's connections to its egress proxy."""

    def __init__(self, stream: GuestStream, proxy: EgressProxy) -> None:
        self._stream = stream
        self._proxy = proxy
        self._relays: dict[int, _Relay] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        stream.on_frames(CONNECTION, self._take)

    def take_message(self, message: JsonObject) -> None:
        """A ``connect``, ``close`` or ``credit`` of the guest's."""
        number = message.get("number")
        if not isinstance(number, int) or not 0 <= number < 1 << 32:
            self._stream.break_off("a message on a connection without its number")
            return
        relay = self._relays.get(number)
        if message["event"] == "connect" and relay is None:
            if len(self._relays) >= _CONNECTIONS:
                self._stream.send_control(op="close", number=number)
                return
            self._connect(number)
        elif message["event"] == "close" and relay is not None:
            relay.end()
        elif message["event"] == "credit" and relay is not None:
            size = message.get("size")
            relay.credit(size if isinstance(size, int) and 0 < size <= WINDOW else 0)

    def log_to(self, services: GuestServices) -> None:
        self._proxy.log_to(services)

    async def close(self) -> None:
        for relay in list(self._relays.values()):
            relay.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._proxy.close()

    def _connect(self, number: int) -> None:
        relay = _Relay(number, self._stream, self._forget)
        self._relays[number] = relay
        task = asyncio.get_running_loop().create_task(self._open(relay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, relay: _Relay) -> None:
        ours, theirs = socket.socketpair()
        await self._proxy.serve(theirs)
        await asyncio.get_running_loop().create_unix_connection(lambda: relay, sock=ours)

    def _take(self, data: bytes) -> None:
        if len(data) < NUMBER.size:
            self._stream.break_off("a frame of a connection without its number")
            return
        relay = self._relays.get(NUMBER.unpack_from(data)[0])
        if relay is not None:
            relay.take(data[NUMBER.size :])
            if relay.is_overfull:
                self._stream.break_off("more was sent on a connection than it had room for")

    def _forget(self, number: int) -> None:
        self._relays.pop(number, None)
