"""The egress proxy with real clients and servers on this machine's loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from swarm.kernel.errors import InvalidError
from swarm.kernel.settings import Settings
from swarm.sandbox.egress import proxy as proxy_module
from swarm.sandbox.egress.proxy import EgressProxy
from tests.contract.sandbox.calling import RecordingServices

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
pytestmark = pytest.mark.anyone


class World:
    """A proxy, its log, servers and clients; all closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services = RecordingServices()
        self.servers: list[asyncio.Server] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.proxy: EgressProxy | None = None
        self.port = 0

    async def start(self, *granted: str, private: tuple[str, ...] = ("127.0.0.0/8",)) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        settings = Settings(home=self.folder, allowed_private_networks=private)
        self.proxy = await EgressProxy.start(listener.detach(), granted, settings)
        self.proxy.log_to(self.services)

    async def serve(self, handler: Serve) -> int:
        async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(closing, "127.0.0.1", 0)
        self.servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def connect(self) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def ask(self, request: str) -> bytes:
        """Send one request and read until the proxy closes."""
        reader, writer = await self.connect()
        writer.write(request.replace("\n", "\r\n").encode())
        return await reader.read()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    for writer in made.writers:
        writer.close()
    if made.proxy is not None:
        await made.proxy.close()
    for server in made.servers:
        server.close()


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if b"content-length" in line
    )
    return head + await reader.readexactly(length)


def echo_head(heads: list[bytes]) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, x-mine\r\n"
            b"X-Mine: 1\r\nX-Kept: 1\r\n\r\nok"
        )

    return serve


async def test_a_request_is_forwarded_clean(world: World) -> None:
    heads: list[bytes] = []
    port = await world.serve(echo_head(heads))
    await world.start("localhost")
    reader, writer = await world.connect()
    writer.write(
        f"GET http://LOCALHOST:{port}/a?b HTTP/1.1\r\nHost: other.test\r\nX-Kept: 1\r\n"
        "Proxy-Authorization: secret\r\nProxy-Connection: keep-alive\r\nX-Drop: 1\r\n"
        "Connection: keep-alive, X-Drop\r\n\r\n".encode()
    )
    answer = (await read_answer(reader)).lower()
    assert answer.startswith(b"http/1.1 200")
    assert b"x-kept" in answer
    assert b"x-mine" not in answer
    assert sorted(heads[0].lower().split(b"\r\n")) == [
        b"",
        b"",
        b"connection: close",
        b"get /a?b http/1.1",
        f"host: localhost:{port}".encode(),
        b"x-kept: 1",
    ]


async def test_each_request_of_a_connection_is_checked(world: World) -> None:
    heads: list[bytes] = []
    port = await world.serve(echo_head(heads))
    await world.start("localhost")
    reader, writer = await world.connect()
    for _ in range(2):
        writer.write(f"GET http://localhost:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await read_answer(reader)).endswith(b"ok")
    writer.write(f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = await read_answer(reader)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"127.0.0.1" in answer
    assert await reader.read() == b""
    assert len(heads) == 2
    assert "not granted" in world.services.text


async def test_bodies_go_both_ways(world: World) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        body = await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")

    port = await world.serve(serve)
    await world.start("localhost")
    answer = await world.ask(
        f"POST http://localhost:{port}/ HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n"
        "Connection: close\n\n5\nhello\n0\n\n"
    )
    assert b"hello" in answer
    assert answer.endswith(b"0\r\n\r\n")


async def test_a_client_that_waits_to_continue_is_told_to(world: World) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(4)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)

    port = await world.serve(serve)
    await world.start("localhost")
    reader, writer = await world.connect()
    writer.write(
        f"PUT http://localhost:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
        "Expect: 100-continue\r\n\r\n".encode()
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(b"body")
    assert (await read_answer(reader)).endswith(b"body")


async def test_a_tunnel_carries_bytes_and_half_closes(world: World) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got:" + await reader.read())

    port = await world.serve(serve)
    await world.start("localhost")
    reader, writer = await world.connect()
    writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\nHost: x\r\n\r\nearly,".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.write(b"late")
    writer.write_eof()
    assert await reader.read() == b"got:early,late"


@pytest.mark.parametrize(
    "request_text",
    [
        "CONNECT localhost:1 HTTP/1.1\nHost: x\n\n",
        "GET http://localhost:1/ HTTP/1.1\nHost: x\n\n",
    ],
)
async def test_a_dead_server_is_a_bad_gateway(world: World, request_text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    await world.start("localhost")
    answer = await world.ask(request_text.replace(":1", f":{port}"))
    assert answer.startswith(b"HTTP/1.1 502")
    assert f"localhost:{port} cannot be reached" in world.services.text


@pytest.mark.parametrize(
    "request_text",
    [
        "GET / HTTP/1.1\nHost: localhost\n\n",
        "GET https://localhost/ HTTP/1.1\nHost: x\n\n",
        "GET http://user:word@localhost/ HTTP/1.1\nHost: x\n\n",
        "GET http:///path HTTP/1.1\nHost: x\n\n",
        "GET http://localhost:99999/ HTTP/1.1\nHost: x\n\n",
        "CONNECT localhost HTTP/1.1\nHost: x\n\n",
        "CONNECT *:80 HTTP/1.1\nHost: x\n\n",
        "CONNECT local host:80 HTTP/1.1\nHost: x\n\n",
        "GET http://localhost/ HTTP/1.1\nHost: x\nContent-Length: 3\nContent-Length: 4\n\n",
        "GET http://localhost/ HTTP/1.1\nHost: x\nBad Header: 1\n\n",
        "nonsense\n\n",
        "GET http://localhost/ HTTP/1.1\nX: " + "x" * 100_000 + "\n\n",
    ],
)
async def test_odd_requests_lead_nowhere(world: World, request_text: str) -> None:
    await world.start("localhost", "*")
    answer = await world.ask(request_text)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 40"), answer


async def test_a_name_that_leads_to_a_private_address_is_refused(world: World) -> None:
    heads: list[bytes] = []
    port = await world.serve(echo_head(heads))
    await world.start("localhost", private=())
    for text in (
        f"GET http://localhost:{port}/ HTTP/1.1\nHost: x\n\n",
        f"CONNECT localhost:{port} HTTP/1.1\nHost: x\n\n",
    ):
        answer = await world.ask(text)
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"not public" in answer
        assert b"SWARM_ALLOWED_PRIVATE_NETWORKS" in answer
    assert heads == []


async def test_connections_are_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "MAX_CONNECTIONS", 3)
    await world.start("localhost")
    for _ in range(3):
        await world.connect()
    reader, _ = await world.connect()
    assert await reader.read() == b""
    assert "more than 3 connections" in world.services.text


async def test_a_response_that_breaks_off_is_not_taken_for_whole(world: World) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    port = await world.serve(serve)
    await world.start("localhost")
    answer = await world.ask(f"GET http://localhost:{port}/ HTTP/1.1\nHost: x\n\n")
    assert answer.endswith(b"half")
    assert b"100" in answer.split(b"\r\n\r\n")[0]


async def test_a_malformed_grant_is_an_error(world: World) -> None:
    with pytest.raises(InvalidError):
        await world.start("http://x/")
