"""What a hostile virtual machine can say on its one stream, and what the host makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import Settings
from swarm.sandbox.egress.proxy import EgressProxy
from swarm.sandbox.microvm.agent.frames import (
    CONNECTION,
    CONTROL,
    CONTROL_LIMIT,
    FILE,
    FRAME_LIMIT,
    HEAD,
    STDOUT,
    WIRE,
    frame,
    frames,
)
from swarm.sandbox.microvm.stream import GuestStream
from swarm.sandbox.microvm.wiring import ProxyRelay, StreamSession
from swarm.sandbox.ports import Limits

_SECONDS = 30.0
_LIMITS = Limits(memory_bytes=1 << 26, timeout_seconds=10)


class Services:
    """Answers every request with as much text as is asked for."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, stream: str, level: str, message: str) -> None:
        self.lines.append(message)

    def progress(self, fraction: float | None, message: str) -> None:
        pass

    def event(self, value: JsonValue) -> None:
        pass

    async def request(self, method: str, params: JsonObject) -> JsonValue:
        return "x" * params["size"]


@dataclass
class Guest:
    """The other end of a stream."""

    stream: GuestStream
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, kind: int, data: bytes) -> None:
        self.writer.write(frames(kind, data))

    def say_on_wire(self, message: JsonObject) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.say(WIRE, len(data).to_bytes(4, "big") + data)

    async def why_closed(self) -> str:
        async with asyncio.timeout(_SECONDS):
            return await self.stream.closed


@pytest.fixture
async def guest() -> AsyncIterator[Guest]:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_unix_connection(GuestStream, sock=ours)
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    yield Guest(stream, reader, writer)
    stream.close()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def _call(guest: Guest, services: Services) -> asyncio.Future[object]:
    session = StreamSession(guest.stream, _LIMITS)
    return session.call(("main.py",), {}, {}, services)  # type: ignore[return-value]


async def test_a_request_is_answered(guest: Guest) -> None:
    answer = _call(guest, Services())
    guest.say_on_wire({"id": 1, "method": "secret", "params": {"size": 3}})
    async with asyncio.timeout(_SECONDS):
        await guest.reader.readuntil(b'"xxx"')
    guest.say_on_wire({"id": 1, "result": {"outputs": {"a": 1}}})
    async with asyncio.timeout(_SECONDS):
        assert "{'a': 1}" in str(await answer)


async def test_who_does_not_read_the_answers_is_given_up(guest: Guest) -> None:
    answer = _call(guest, Services())
    for number in range(20):
        guest.say_on_wire({"id": number + 2, "method": "secret", "params": {"size": 1 << 20}})
    async with asyncio.timeout(_SECONDS):
        assert "does not read the answers" in str(await answer)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 100,
        HEAD.pack(STDOUT, FRAME_LIMIT + 1),
        HEAD.pack(CONTROL, CONTROL_LIMIT + 1),
        HEAD.pack(200, 0),
        frame(CONTROL, b"[]"),
        frame(CONTROL, b"not json"),
        frame(CONTROL, b"\xff"),
        frame(CONTROL, b"[" * 900 + b"]" * 900),
        frame(FILE, b"nobody asked"),
        frame(CONNECTION, b"no relay"),
    ],
)
async def test_what_is_no_frame_ends_the_machine(guest: Guest, data: bytes) -> None:
    guest.writer.write(data)
    assert "broke its protocol" in await guest.why_closed()


@pytest.mark.parametrize("number", [-1, 1 << 32, None, "1", 1.5])
async def test_a_connection_has_a_number_that_fits(
    guest: Guest, tmp_path: Path, number: object
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = await EgressProxy.start(listener.detach(), ("*",), Settings(home=tmp_path))
    relay = ProxyRelay(guest.stream, proxy)
    guest.stream.on_messages(relay.take_message)
    message = {"event": "connect", "number": number}
    guest.say(CONTROL, json.dumps(message).encode())
    assert "without its number" in await guest.why_closed()
    await relay.close()


async def test_more_than_a_connection_has_room_for_ends_the_machine(
    guest: Guest, tmp_path: Path
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = await EgressProxy.start(listener.detach(), ("*",), Settings(home=tmp_path))
    relay = ProxyRelay(guest.stream, proxy)
    guest.stream.on_messages(relay.take_message)
    guest.say(CONTROL, b'{"event":"connect","number":7}')
    for _ in range(64):
        guest.say(CONNECTION, (7).to_bytes(4, "big") + bytes(FRAME_LIMIT - 4))
    reason = await guest.why_closed()
    assert "more was sent on a connection" in reason
    await relay.close()
