"""The host's side: serving the calls of its peers."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from swarm.dispatch.messages import (
    MAX_MESSAGE_BYTES,
    Call,
    Cancel,
    Event,
    Failure,
    Reply,
    Result,
    decode_request,
    encode,
    read_line,
)
from swarm.kernel.errors import InvalidError, RefusedError, SwarmError, UnavailableError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import MIB

MAX_CONNECTIONS = 128
"""Peers connected to one host at once; a further one is turned away."""
MAX_CALLS = 256
"""Calls that one peer may have open at once."""
MAX_UNSENT_BYTES = 16 * MIB
"""What a peer may be behind; a stream that finds it further behind ends with an error."""
FLUSH_SECONDS = 2.0
"""How long a host that leaves waits for its peers to take what was already sent to them."""

Emit: TypeAlias = Callable[[JsonObject], None]
Handler: TypeAlias = Callable[[str, JsonObject, Emit], Awaitable[JsonValue]]
"""``await handler(method, params, emit)`` serves one call and returns its result.

``emit`` sends an event to a peer that asked for a stream, and does nothing otherwise. When the peer
is gone, a stream is cancelled; any other call goes on.
"""


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end (``SO_PEERCRED``, unix(7))."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return int(uid)


def is_trusted(uid: int) -> bool:
    """Whether ``uid`` may talk to this process: the same user, or root."""
    return uid in (os.geteuid(), 0)


class Server:
    """Serves the peers of one host."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._peers: dict[_Peer, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[JsonValue]] = set()
        """Every call, also those whose peer is gone."""

    async def start(self, listener: socket.socket) -> None:
        """Serve whoever connects to ``listener``, which listens already."""
        self._server = await asyncio.start_unix_server(
            self.accept, sock=listener, limit=MAX_MESSAGE_BYTES
        )

    async def close(self) -> None:
        """Take nobody new, end every call, and let peers take what was sent to them."""
        if self._server:
            self._server.close()
        tasks = list(self._peers.values())
        for peer in list(self._peers):
            peer.end()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=FLUSH_SECONDS)
            for peer in list(self._peers):
                peer.abort()
            if late:
                await asyncio.wait(late)
        running = self._running - {asyncio.current_task()}
        for call in running:
            call.cancel()
        if running:
            await asyncio.wait(running)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one peer until it is gone."""
        task = asyncio.current_task()
        assert task is not None
        peer = _Peer(self._handler, self._running, reader, writer)
        self._peers[peer] = task
        try:
            if refusal := self._refusal(writer):
                peer.refuse(refusal)
            else:
                await peer.serve()
            await peer.closed()
        finally:
            del self._peers[peer]

    def _refusal(self, writer: asyncio.StreamWriter) -> SwarmError | None:
        # A peer that comes by way of the database has shown there who it is.
        connection: socket.socket | None = writer.get_extra_info("socket")
        if connection is not None and not is_trusted(peer_uid(connection)):
            return RefusedError(
                "this host belongs to another user",
                remedy="use the home as the user that owns it, or as root",
            )
        if len(self._peers) > MAX_CONNECTIONS:
            return UnavailableError(
                f"the host already has {MAX_CONNECTIONS} connections",
                remedy="stop some of the commands that follow its runs",
            )
        return None


class _Peer:
    """One connection and the calls that came by it."""

    def __init__(
        self,
        handler: Handler,
        running: set[asyncio.Task[JsonValue]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._handler = handler
        self._running = running
        self._reader = reader
        self._writer = writer
        self._calls: dict[int, asyncio.Task[JsonValue]] = {}
        self._streams: set[int] = set()

    async def serve(self) -> None:
        """Read requests until the peer is gone or :meth:`end` is called."""
        try:
            while (line := await read_line(self._reader)) and not self._writer.is_closing():
                match decode_request(line):
                    case Call() as call:
                        self._begin(call)
                    case Cancel(id=number):
                        self._drop_stream(number)
        except InvalidError as error:
            self.refuse(error)
        finally:
            for number in tuple(self._streams):
                self._drop_stream(number)
            self._writer.close()

    def refuse(self, error: SwarmError) -> None:
        """Tell the peer why, and close."""
        self._send(Failure(None, error))
        self._writer.close()

    def end(self) -> None:
        """End every call and close; what is buffered is still sent."""
        leaving = UnavailableError("the host is shutting down", remedy="try again")
        for number, task in tuple(self._calls.items()):
            self._finish(number, Failure(number, leaving))
            task.cancel()
        self._reader.feed_eof()
        self._writer.close()

    def abort(self) -> None:
        """Close now, whatever is still buffered."""
        self._writer.transport.abort()

    async def closed(self) -> None:
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return

    def _begin(self, call: Call) -> None:
        number = call.id
        if number in self._calls:
            raise InvalidError(f"the call {number} is open already")
        if len(self._calls) >= MAX_CALLS or self._is_behind():
            error = UnavailableError(
                f"this connection already has {MAX_CALLS} open calls, or more than "
                f"{MAX_UNSENT_BYTES} bytes of replies that were not read",
                remedy="read the replies, and wait for some calls to end",
            )
            self._send(Failure(number, error))
            return

        def emit(value: JsonObject) -> None:
            if number in self._streams:
                self._emit(Event(number, value))

        if call.stream:
            self._streams.add(number)
        task = asyncio.ensure_future(_run(self._handler, call, emit))
        self._calls[number] = task
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda done: self._report(number, done))

    def _emit(self, event: Event) -> None:
        failure: SwarmError | None = None
        if self._is_behind():
            failure = UnavailableError(
                f"the reader of the stream is more than {MAX_UNSENT_BYTES} bytes behind",
                remedy="read faster, or follow again: what ended meanwhile is told first",
            )
        else:
            try:
                self._writer.write(encode(event))
            except InvalidError as error:
                failure = error
        if failure:
            task = self._calls[event.id]
            self._finish(event.id, Failure(event.id, failure))
            task.cancel()

    def _report(self, number: int, done: asyncio.Task[JsonValue]) -> None:
        """Send how a call ended, unless the peer was told already or no longer asks."""
        reply: Result | Failure
        error = None if done.cancelled() else done.exception()
        if done.cancelled():
            reply = Failure(number, UnavailableError("the call was cancelled by the host"))
        elif error is None:
            reply = Result(number, done.result())
        elif isinstance(error, SwarmError):
            reply = Failure(number, error)
        else:
            reply = Failure(number, SwarmError(f"{type(error).__name__}: {error}"))
            done.get_loop().call_exception_handler(
                {"message": "a host's handler failed", "exception": error, "task": done}
            )
        if self._calls.get(number) is done:
            self._finish(number, reply)

    def _finish(self, number: int, reply: Result | Failure) -> None:
        self._streams.discard(number)
        del self._calls[number]
        self._send(reply)

    def _drop_stream(self, number: int) -> None:
        if number in self._streams:
            self._streams.discard(number)
            self._calls.pop(number).cancel()

    def _is_behind(self) -> bool:
        return self._writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES

    def _send(self, reply: Reply) -> None:
        if self._writer.is_closing():
            return
        try:
            self._writer.write(encode(reply))
        except InvalidError as error:
            self._writer.write(encode(Failure(reply.id, error)))


async def _run(handler: Handler, call: Call, emit: Emit) -> JsonValue:
    return await handler(call.method, call.params, emit)
