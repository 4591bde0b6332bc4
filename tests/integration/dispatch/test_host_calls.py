"""Requests and streams between the hosts of one home, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from swarm.dispatch import connection as connection_module
from swarm.dispatch import server as server_module
from swarm.dispatch.local_hosts import Emit, HostConnection, HostLease, LocalHosts
from swarm.dispatch.messages import MAX_MESSAGE_BYTES
from swarm.kernel.errors import (
    DefinitionError,
    InputError,
    InvalidError,
    NotFoundError,
    Problem,
    RefusedError,
    SwarmError,
    UnavailableError,
)

PATIENCE_SECONDS = 20


class Service:
    """What the host under test does for its peers."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.finished = asyncio.Event()
        self.go_on = asyncio.Event()
        self.errors: list[BaseException] = [KeyError("secret place")]

    async def handle(self, method: str, params: dict[str, Any], emit: Emit) -> Any:
        match method:
            case "echo":
                return params
            case "count":
                for number in range(params["to"]):
                    emit({"number": number})
                return "ignored"
            case "raise":
                raise self.errors.pop()
            case "wait":
                emit({"started": True})
                try:
                    await self.go_on.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
                self.finished.set()
                return "waited"
            case "flood":
                while True:
                    emit({"text": "x" * 100_000})
                    await asyncio.sleep(0)
            case "large":
                return "x" * params["size"]
            case "emit-large":
                emit({"text": "x" * params["size"]})
                return None
        raise AssertionError(method)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def lease(hosts: LocalHosts, service: Service) -> AsyncIterator[HostLease]:
    lease = await hosts.join(service.handle, "worker")
    yield lease
    await lease.leave()


@pytest.fixture
async def peer(hosts: LocalHosts, lease: HostLease) -> AsyncIterator[HostConnection]:
    connection = await hosts.connect(lease.id)
    yield connection
    connection.close()
    await connection.closed()


async def test_requests_are_answered_in_any_number(peer: HostConnection) -> None:
    answers = await asyncio.gather(*(peer.request("echo", {"n": n, "☃": None}) for n in range(200)))
    assert answers == [{"n": n, "☃": None} for n in range(200)]
    assert await peer.request("echo") == {}


async def test_a_stream_gives_every_event_and_ends(peer: HostConnection) -> None:
    numbers = [event["number"] async for event in peer.stream("count", {"to": 1000})]
    assert numbers == list(range(1000))
    assert await peer.request("count", {"to": 5}) == "ignored", "a request has no events"


async def test_streams_and_requests_share_a_connection(
    peer: HostConnection, service: Service
) -> None:
    waiting = peer.stream("wait")
    assert await anext(waiting) == {"started": True}
    assert await peer.request("echo", {"a": 1}) == {"a": 1}
    service.go_on.set()
    with pytest.raises(StopAsyncIteration):
        await anext(waiting)


async def test_errors_keep_their_class_and_words(peer: HostConnection, service: Service) -> None:
    problems = [Problem("bad", "agent.yaml", 3, 1, "mend it"), Problem("worse", "agent.yaml")]
    errors = (
        InputError("no", where="here", remedy="there"),
        RefusedError("never"),
        NotFoundError("gone", name="ecoh", known=["echo"]),
        DefinitionError(problems),
        SwarmError("plain"),
    )
    for error in errors:
        service.errors.append(error)
        with pytest.raises(SwarmError) as caught:
            await peer.request("raise")
        assert type(caught.value) is type(error)
        assert caught.value.as_json() == error.as_json()
        assert str(caught.value) == str(error)
    service.errors.append(InputError("no"))
    with pytest.raises(InputError):
        await anext(peer.stream("raise"))


async def test_an_unforeseen_error_is_told_and_reported(
    peer: HostConnection, service: Service
) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    with pytest.raises(SwarmError) as caught:
        await peer.request("raise")
    assert caught.value.message == "KeyError: 'secret place'"
    assert isinstance(reported[0]["exception"], KeyError)
    assert await peer.request("echo") == {}, "the connection goes on"


async def test_closing_a_stream_cancels_it_at_the_host(
    peer: HostConnection, service: Service
) -> None:
    async with peer.stream("wait") as stream:
        await anext(stream)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await service.cancelled.wait()
    assert await peer.request("echo") == {}


async def test_a_peer_that_goes_away_ends_its_streams_but_not_its_requests(
    hosts: LocalHosts, lease: HostLease, service: Service
) -> None:
    connection = await hosts.connect(lease.id)
    async with asyncio.timeout(PATIENCE_SECONDS):
        request = asyncio.ensure_future(connection.request("wait"))
        await anext(connection.stream("wait"))
        connection.close()
        with pytest.raises(UnavailableError):
            await request
        await service.cancelled.wait()
        service.go_on.set()
        await service.finished.wait()


async def test_leaving_ends_calls_and_flushes_what_was_said(
    hosts: LocalHosts, service: Service
) -> None:
    lease = await hosts.join(service.handle, "run")
    connection = await hosts.connect(lease.id)
    waiting = asyncio.ensure_future(connection.request("wait"))
    stream = connection.stream("wait")
    assert await connection.request("echo") == {}
    await lease.leave()
    assert service.cancelled.is_set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await connection.closed()
        assert await anext(stream) == {"started": True}
        for ended in (anext(stream), waiting):
            with pytest.raises(UnavailableError, match="shutting down"):
                await ended


async def test_a_reader_too_slow_for_the_host_loses_its_stream(
    peer: HostConnection, lease: HostLease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's buffer is bounded when the peer's process does not read at all."""
    monkeypatch.setattr(server_module, "MAX_UNSENT_BYTES", 1_000_000)
    socket_of_peer = connect_raw(lease)
    call = {"id": 1, "method": "flood", "params": {}, "stream": True}
    socket_of_peer.sendall(json.dumps(call).encode() + b"\n")
    assert await peer.request("echo") == {}
    async with asyncio.timeout(PATIENCE_SECONDS):
        lines = await asyncio.to_thread(read_until_error, socket_of_peer)
    assert lines[-1]["error"]["code"] == "unavailable"
    assert "behind" in lines[-1]["error"]["message"]
    assert sum(len(line.get("event", {}).get("text", "")) for line in lines) < 5_000_000


async def test_events_that_nobody_takes_are_bounded_too(
    peer: HostConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MAX_UNREAD_EVENTS", 50)
    stream = peer.stream("count", {"to": 51})
    assert await peer.request("echo") == {}
    taken = []
    with pytest.raises(UnavailableError, match="not read"):
        async for event in stream:
            taken.append(event["number"])
    assert taken == list(range(50))
    monkeypatch.setattr(connection_module, "MAX_UNREAD_BYTES", 10)
    with pytest.raises(UnavailableError, match="not read"):
        async for _ in peer.stream("count", {"to": 3}):
            pass


@pytest.mark.parametrize("method", ["large", "emit-large"])
async def test_messages_over_the_limit_fail_alone(peer: HostConnection, method: str) -> None:
    with pytest.raises(InvalidError, match="over the limit"):
        await peer.request("echo", {"text": "x" * MAX_MESSAGE_BYTES})
    with pytest.raises(InvalidError, match="over the limit"):
        await anext(peer.stream(method, {"size": MAX_MESSAGE_BYTES}))
    fits = MAX_MESSAGE_BYTES - 1000
    assert len(await peer.request("large", {"size": fits})) == fits


def lease_socket(lease: HostLease) -> Path:
    return lease._folder.file(lease.id, ".sock")


def connect_raw(lease: HostLease, user: int | None = None) -> socket.socket:
    """A peer that does not follow the protocol, maybe of another user."""
    path = lease_socket(lease)
    connection = socket.socket(socket.AF_UNIX)
    descriptor = os.open(path.parent, os.O_PATH)
    own = os.geteuid()
    os.seteuid(own if user is None else user)
    try:
        connection.connect(f"/proc/self/fd/{descriptor}/{path.name}")
    finally:
        os.seteuid(own)
        os.close(descriptor)
    return connection


def read_until_error(connection: socket.socket) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    with connection, connection.makefile("rb") as file:
        for line in file:
            lines.append(json.loads(line))
            if "error" in lines[-1]:
                break
    return lines


@pytest.mark.parametrize(
    "line",
    [
        b"junk\n",
        b"[]\n",
        b'{"id": 1}\n',
        b'{"id": "1", "method": "echo", "params": {}}\n',
        b'{"id": 1, "method": "wait", "params": {}}\n{"id": 1, "method": "wait", "params": {}}\n',
        b"x" * (3 * MAX_MESSAGE_BYTES),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_disconnected(
    peer: HostConnection, lease: HostLease, line: bytes
) -> None:
    def misbehave(connection: socket.socket) -> dict[str, Any]:
        with suppress(BrokenPipeError):
            connection.sendall(line)
        with connection.makefile("rb") as file:
            return json.loads(file.readline())

    with connect_raw(lease) as connection:
        reply = await asyncio.to_thread(misbehave, connection)
    assert reply["id"] is None
    assert reply["error"]["code"] == "invalid"
    assert await peer.request("echo") == {}, "others are not disturbed"


async def test_one_connection_too_many_is_turned_away(
    hosts: LocalHosts, lease: HostLease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 3)
    connections = [await hosts.connect(lease.id) for _ in range(3)]
    for connection in connections:
        await connection.request("echo")
    surplus = await hosts.connect(lease.id)
    with pytest.raises(UnavailableError, match="3 connections"):
        await surplus.request("echo")
    connections.pop().close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            again = await hosts.connect(lease.id)
            connections.append(again)
            try:
                await again.request("echo")
                break
            except UnavailableError:
                continue
    for connection in connections:
        connection.close()


async def test_calls_on_one_connection_are_bounded(
    peer: HostConnection, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CALLS", 2)
    waiting = [asyncio.ensure_future(peer.request("wait")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="2 open calls"):
        await peer.request("echo")
    service.go_on.set()
    assert await asyncio.gather(*waiting) == ["waited", "waited"]


async def test_a_cancelled_request_goes_on_at_the_host(
    peer: HostConnection, service: Service
) -> None:
    waiting = asyncio.ensure_future(peer.request("wait"))
    assert await peer.request("echo") == {}
    waiting.cancel()
    service.go_on.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await service.finished.wait()
    assert not service.cancelled.is_set()
    assert await peer.request("echo") == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused(
    peer: HostConnection, lease: HostLease, folder: Path
) -> None:
    folder.chmod(0o755)
    lease_socket(lease).chmod(0o666)
    connection = connect_raw(lease, user=65534)
    (line,) = await asyncio.to_thread(read_until_error, connection)
    assert line["id"] is None
    assert line["error"]["code"] == "refused"
    assert await peer.request("echo") == {}
