"""The peer's side: a connection to another host of the home."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from itertools import count
from types import TracebackType

from swarm.dispatch.messages import (
    Call,
    Cancel,
    Event,
    Failure,
    Result,
    decode_reply,
    encode,
    read_line,
)
from swarm.kernel.errors import InvalidError, SwarmError, UnavailableError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import MIB

MAX_UNREAD_EVENTS = 10_000
"""Events of one stream that wait to be taken; a stream further behind ends with an error."""
MAX_UNREAD_BYTES = 16 * MIB
"""The same in bytes, as they came by the socket."""


class HostConnection:
    """A connection to one host; made by ``LocalHosts.connect``. Belongs to one event loop.

    Errors that the host's handler raised are raised here as the same classes. When the host goes
    away, whatever waits for it gets an UnavailableError.
    """

    def __init__(
        self, host_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.host_id = host_id
        self._reader = reader
        self._writer = writer
        self._numbers = count(1)
        self._results: dict[int, asyncio.Future[JsonValue]] = {}
        self._streams: dict[int, HostStream] = {}
        self._end: SwarmError | None = None
        self._receiver = asyncio.ensure_future(self._receive())

    async def request(self, method: str, params: JsonObject | None = None) -> JsonValue:
        """Call the host and return the result. If the caller is cancelled, the call goes on there.

        Raises:
            UnavailableError: the host is gone, before or while it answered.
            InvalidError: the parameters are not JSON or too large.
            SwarmError: what the handler raised.
        """
        number = next(self._numbers)
        self._send(Call(number, method, params or {}))
        future: asyncio.Future[JsonValue] = asyncio.get_running_loop().create_future()
        self._results[number] = future
        try:
            return await future
        finally:
            self._results.pop(number, None)

    def stream(self, method: str, params: JsonObject | None = None) -> HostStream:
        """Call the host at once and return the events of the call as they come.

        Raises:
            UnavailableError: the host is gone.
            InvalidError: the parameters are not JSON or too large.
        """
        number = next(self._numbers)
        self._send(Call(number, method, params or {}, stream=True))
        stream = HostStream(self, number)
        self._streams[number] = stream
        return stream

    async def closed(self) -> None:
        """Return when the connection has ended: the host is gone, or :meth:`close` was called."""
        await asyncio.shield(self._receiver)

    def close(self) -> None:
        """Close the connection; streams end, and what waits for a result fails."""
        self._writer.close()
        self._reader.feed_eof()

    def _send(self, request: Call | Cancel) -> None:
        if self._end or self._writer.is_closing():
            raise self._end or self._gone()
        self._writer.write(encode(request))

    def _gone(self) -> SwarmError:
        return UnavailableError(
            "the connection to the host has ended",
            where=self.host_id,
            remedy="the host has stopped or left; another takes its runs up, "
            "or `swarm runs resume` does",
        )

    async def _receive(self) -> None:
        end = self._gone()
        try:
            while line := await read_line(self._reader):
                match decode_reply(line):
                    case Failure(id=None, error=error):
                        end = error
                    case reply:
                        self._deliver(reply, len(line))
        except InvalidError as error:
            end = error
        finally:
            self._end = end
            self._writer.close()
            for future in self._results.values():
                if not future.done():
                    future.set_exception(end)
            for stream in tuple(self._streams.values()):
                stream.end(end)
            self._streams.clear()

    def _deliver(self, reply: Event | Result | Failure, size: int) -> None:
        stream = self._streams.get(reply.id) if reply.id is not None else None
        match reply:
            case Event(value=value) if stream:
                if not stream.add(value, size):
                    self._drop(stream)
            case Result() | Failure() if stream:
                del self._streams[stream.number]
                stream.end(reply.error if isinstance(reply, Failure) else None)
            case Result(id=number, value=value):
                if (future := self._results.get(number)) and not future.done():
                    future.set_result(value)
            case Failure(id=int(number), error=error):
                if (future := self._results.get(number)) and not future.done():
                    future.set_exception(error)

    def _drop(self, stream: HostStream) -> None:
        """Forget a stream and tell the host to end it."""
        if self._streams.pop(stream.number, None) and not self._writer.is_closing():
            self._writer.write(encode(Cancel(stream.number)))


class HostStream(AsyncIterator[JsonObject]):
    """The events of one call, in order. Ends as the call does: an error of it is raised."""

    def __init__(self, connection: HostConnection, number: int) -> None:
        self.number = number
        self._connection = connection
        self._events: deque[tuple[JsonObject, int]] = deque()
        self._unread_bytes = 0
        self._changed = asyncio.Event()
        self._ended = False
        self._error: SwarmError | None = None

    def __aiter__(self) -> HostStream:
        return self

    async def __anext__(self) -> JsonObject:
        while not self._events:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        event, size = self._events.popleft()
        self._unread_bytes -= size
        return event

    async def __aenter__(self) -> HostStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading; the host cancels the call."""
        self._events.clear()
        if not self._ended:
            self.end(None)
            self._connection._drop(self)

    def add(self, event: JsonObject, size: int) -> bool:
        """Take one event of ``size`` bytes in; False, the stream ended, if too much waits."""
        if len(self._events) >= MAX_UNREAD_EVENTS or self._unread_bytes > MAX_UNREAD_BYTES:
            self.end(
                UnavailableError(
                    f"more than {MAX_UNREAD_EVENTS} events or {MAX_UNREAD_BYTES} bytes of the "
                    "stream were not read",
                    where=self._connection.host_id,
                    remedy="read faster, or follow again: what ended meanwhile is told first",
                )
            )
            return False
        self._events.append((event, size))
        self._unread_bytes += size
        self._changed.set()
        return True

    def end(self, error: SwarmError | None) -> None:
        """No more events come; ``error`` is raised once those here are read."""
        self._ended = True
        self._error = error
        self._changed.set()
