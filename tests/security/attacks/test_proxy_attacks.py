"""Tricks played on the egress proxy, which is the one way out of a sandbox.

What must not be reached is a server of the host's loopback. Each trick is first played on
something that lacks the check it is aimed at: where the operator allows everything, or a proxy that
nobody thought about.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import Settings
from swarm.sandbox.egress import exchange, names, proxy
from swarm.sandbox.egress.policy import is_public
from swarm.sandbox.egress.proxy import EgressProxy

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_EVERYTHING = ("0.0.0.0/0", "::/0")
_HIDDEN = b"the-hosts-secret"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
_SECONDS = 30.0


@dataclass
class Listening:
    """The host's side of an invocation, of which only the log is of interest."""

    lines: list[str] = field(default_factory=list)

    def log(self, stream: str, level: str, message: str) -> None:
        self.lines.append(message)

    def progress(self, fraction: float | None, message: str) -> None:
        pass

    def event(self, value: JsonValue) -> None:
        pass

    async def request(self, method: str, params: JsonObject) -> JsonValue:
        return None


@dataclass
class Backend:
    """An HTTP server that counts bytes as the first Content-Length says, like many."""

    answer: bytes = _HIDDEN
    heads: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            lengths = [
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ]
            if lengths:
                await reader.readexactly(lengths[0])
            writer.write(_ANSWER % (len(self.answer), self.answer))
            await writer.drain()


@dataclass
class Net:
    """Servers and a proxy on this machine's loopback."""

    folder: Path
    stack: contextlib.AsyncExitStack
    port: int = 0
    services: Listening = field(default_factory=Listening)

    async def serve(self, handler: Handler, host: str = "127.0.0.1", port: int = 0) -> int:
        async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await handler(reader, writer)
            writer.close()

        server = await asyncio.start_server(closing, host, port)
        self.stack.callback(server.close)
        found: int = server.sockets[0].getsockname()[1]
        return found

    async def proxy(self, *granted: str, private: tuple[str, ...] = ()) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        settings = Settings(home=self.folder, allowed_private_networks=private)
        started = await EgressProxy.start(listener.detach(), granted, settings)
        started.log_to(self.services)
        self.stack.push_async_callback(started.close)

    async def naive_proxy(self, granted: str) -> None:
        """A proxy that looks at the first line of a connection, and then carries bytes."""

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n")
            authority = head.split(b"/")[2].split(b" ")[0].decode()
            assert authority.startswith(granted)
            name, _, port = authority.partition(":")
            upstream = await asyncio.open_connection(name, int(port))
            upstream[1].write(head)
            both = (_pump(reader, upstream[1]), _pump(upstream[0], writer))
            try:
                await asyncio.gather(*both)
            finally:
                upstream[1].close()

        self.port = await self.serve(relay)

    async def send(self, data: str | bytes) -> bytes:
        """All that the proxy answers to ``data``, after which nothing more is sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        try:
            writer.write(data if isinstance(data, bytes) else data.replace("\n", "\r\n").encode())
            writer.write_eof()
            async with asyncio.timeout(_SECONDS):
                while chunk := await reader.read(65536):
                    answer += chunk
        except ConnectionError:
            pass  # What it has said by then is all there is.
        finally:
            writer.close()
        return answer


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.write_eof()


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Net]:
    async with contextlib.AsyncExitStack() as stack:
        yield Net(tmp_path, stack)


_FORMS = (
    "127.0.0.1",
    "localhost",
    "LOCALHOST.",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
)


@pytest.mark.parametrize("method", ["CONNECT", "GET"])
@pytest.mark.parametrize("form", _FORMS)
async def test_no_spelling_leads_to_the_loopback(net: Net, form: str, method: str) -> None:
    backend = Backend()
    port = await net.serve(backend)
    name = form.strip("[]") if ":" in form else form
    target = f"{form}:{port}" if method == "CONNECT" else f"http://{form}:{port}/"
    request = f"{method} {target} HTTP/1.1\nHost: {form}:{port}\n\n"
    tunnelled = "GET / HTTP/1.1\nHost: x\n\n" if method == "CONNECT" else ""

    await net.proxy(name, private=_EVERYTHING)
    assert _HIDDEN in await net.send(request + tunnelled), "the attack is empty"
    backend.heads.clear()

    for granted in (name, "*"):
        await net.proxy(granted)
        answer = await net.send(request + tunnelled)
        assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400")), answer
    assert backend.heads == []


@pytest.mark.parametrize(
    "target",
    ["[::1%25lo]:1", "[fe80::1%25lo]:1", "user@127.0.0.1:1", "127.0.0.1:1@example.com:1",
     "127.0.0.1%00.example.com:1", "example.com:99999", "*:1", ":1", "[::1:1"],
)  # fmt: skip
async def test_what_is_no_host_is_refused(net: Net, target: str) -> None:
    await net.proxy("*", private=_EVERYTHING)
    for request in (f"CONNECT {target} HTTP/1.1", f"GET http://{target}/ HTTP/1.1"):
        answer = await net.send(f"{request}\nHost: x\n\n")
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 502")), answer


_PRIVATE_PREFIXES = ("10.", "127.", "169.254.", "172.16.", "192.168.", "fe80:", "fc", "fd")


@pytest.mark.parametrize(
    "address",
    ["64:ff9b::7f00:1", "::ffff:10.0.0.1", "2002:7f00:1::", "::127.0.0.1", "168.63.129.16",
     "100.100.100.200", "198.18.0.1", "2001:0:7f00:1::", "fec0::1", "ff02::1"],
)  # fmt: skip
def test_forms_that_a_simple_check_takes_for_public(address: str) -> None:
    assert not address.startswith(_PRIVATE_PREFIXES), "the attack is empty"
    assert not is_public(ipaddress.ip_address(address))


class _Resolver:
    """Names whose answers change from question to question."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        addresses = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, port)) for name in addresses]


async def _rebinding(
    net: Net, *answers: tuple[str, ...]
) -> tuple[Backend, Backend, int, _Resolver]:
    """127.0.0.2 stands for a public host, 127.0.0.1 for the host's own."""
    honest, hidden = Backend(b"honest"), Backend()
    port = await net.serve(honest, "127.0.0.2")
    await net.serve(hidden, "127.0.0.1", port)
    resolver = _Resolver(*answers)
    patched = pytest.MonkeyPatch()
    patched.setattr(names, "getaddrinfo", resolver)
    net.stack.callback(patched.undo)
    return honest, hidden, port, resolver


async def test_a_name_is_connected_to_where_it_was_judged(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = (("127.0.0.2",), ("127.0.0.1",))
    honest, hidden, port, resolver = await _rebinding(net, *answers)
    request = f"GET http://flip.test:{port}/ HTTP/1.1\nHost: flip.test\nConnection: close\n\n"
    await net.proxy("flip.test", private=("127.0.0.2/32",))
    proxy_port = net.port

    async def by_name(addresses: object, to: int) -> object:
        found = resolver("flip.test", to)
        return await asyncio.open_connection(found[0][4][0], to)  # type: ignore[index]

    with monkeypatch.context() as naive:
        naive.setattr(exchange, "_connect_first", by_name)
        assert _HIDDEN in await _ask(proxy_port, request), "the attack is empty"
    hidden.heads.clear()
    resolver.asked = 0
    assert b"honest" in await _ask(proxy_port, request)
    assert b"403" in await _ask(proxy_port, request), "the next request is judged anew"
    assert hidden.heads == []
    assert len(honest.heads) == 1


async def _ask(port: int, request: str) -> bytes:
    """A request by sockets alone: the loop's resolver is the one that lies."""

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", port), _SECONDS) as client:
            client.sendall(request.replace("\n", "\r\n").encode())
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
            return answer

    return await asyncio.to_thread(ask)


async def test_a_private_address_among_public_ones_is_passed_over(net: Net) -> None:
    _, hidden, port, _ = await _rebinding(net, ("127.0.0.1", "127.0.0.2"))
    request = f"GET http://both.test:{port}/ HTTP/1.1\nHost: both.test\nConnection: close\n\n"
    await net.proxy("both.test", private=("127.0.0.0/8",))
    assert _HIDDEN in await _ask(net.port, request), "the attack is empty"
    hidden.heads.clear()
    await net.proxy("both.test", private=("127.0.0.2/32",))
    assert b"honest" in await _ask(net.port, request)
    assert hidden.heads == []


async def test_a_redirect_is_a_request_like_any_other(net: Net) -> None:
    hidden = Backend()
    hidden_port = await net.serve(hidden)

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        place = f"http://127.0.0.1:{hidden_port}/"
        writer.write(
            f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
        )

    port = await net.serve(redirect)

    def follow() -> bytes:
        handler = urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{net.port}"})
        opener = urllib.request.build_opener(handler)
        try:
            with opener.open(f"http://localhost:{port}/", timeout=_SECONDS) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            with error:
                return str(error.code).encode()

    loopback = ("127.0.0.0/8", "::1/128")
    await net.proxy("localhost", "127.0.0.1", private=loopback)
    assert await asyncio.to_thread(follow) == _HIDDEN, "the attack is empty"
    hidden.heads.clear()
    await net.proxy("localhost", private=loopback)
    assert await asyncio.to_thread(follow) == b"403"
    assert hidden.heads == []


_SMUGGLED = "GET /smuggled HTTP/1.1\nHost: internal\n\n"
_SMUGGLING = {
    "length-and-chunks": "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n{smuggled}",
    "two-lengths": "Content-Length: 0\nContent-Length: {size}\n\n{smuggled}",
    "chunked-in-disguise": "Content-Length: 0\nTransfer-Encoding: xchunked\n\n{smuggled}",
    "space-before-colon": "Content-Length: 0\nContent-Length : {size}\n\n{smuggled}",
    "folded-line": "X: y\n Content-Length: {size}\nContent-Length: 0\n\n{smuggled}",
    "no-length": "X: y\n\n{smuggled}",
    "pipelined": "Content-Length: 0\n\n{smuggled}",
}  # fmt: skip


@pytest.mark.parametrize("trick", _SMUGGLING)
async def test_no_second_request_is_smuggled(net: Net, trick: str) -> None:
    backend = Backend(b"public")
    port = await net.serve(backend)
    rest = _SMUGGLING[trick].format(smuggled=_SMUGGLED, size=len(_SMUGGLED.replace("\n", "\r\n")))
    request = f"POST http://127.0.0.1:{port}/ HTTP/1.1\nHost: 127.0.0.1\n{rest}"

    await net.naive_proxy("127.0.0.1")
    await net.send(request)
    assert any(b"/smuggled" in head.split(b"\r\n")[0] for head in backend.heads), "it is empty"
    backend.heads.clear()

    await net.proxy("127.0.0.1", private=("127.0.0.0/8",))
    await net.send(request)
    assert not any(b"smuggled" in head for head in backend.heads), backend.heads


async def test_the_host_header_is_the_host_that_was_granted(net: Net) -> None:
    backend = Backend(b"public")
    port = await net.serve(backend)
    request = f"GET http://127.0.0.1:{port}/ HTTP/1.1\nHost: internal\n\n"
    await net.naive_proxy("127.0.0.1")
    await net.send(request)
    assert b"Host: internal" in backend.heads[0], "the attack is empty"
    backend.heads.clear()
    await net.proxy("127.0.0.1", private=("127.0.0.0/8",))
    await net.send(request)
    assert b"internal" not in backend.heads[0]
    assert f"host: 127.0.0.1:{port}".encode() in backend.heads[0].lower()


@pytest.mark.parametrize("line", ["X: a\rY: b", "X: a\nY: b\x00", "X\x01: a"])
async def test_no_line_is_added_to_a_head(net: Net, line: str) -> None:
    backend = Backend(b"public")
    port = await net.serve(backend)
    request = f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n".encode()
    await net.naive_proxy("127.0.0.1")
    await net.send(request)
    assert backend.heads, "the attack is empty"
    backend.heads.clear()
    await net.proxy("127.0.0.1", private=("127.0.0.0/8",))
    answer = await net.send(request)
    assert backend.heads == []
    assert b" 200 " not in answer


@dataclass
class _SilentNameServer:
    """Lookups that do not end before the test does."""

    end: threading.Event = field(default_factory=threading.Event)
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    count: int = 0

    def __call__(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.count += 1
        self.asked.release()
        self.end.wait()
        raise OSError("no such name")


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[_SilentNameServer]:
    server = _SilentNameServer()
    monkeypatch.setattr(names, "getaddrinfo", server)
    yield server
    server.end.set()


async def _ask_for_names(port: int, count: int) -> list[asyncio.StreamWriter]:
    writers = []
    for number in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"CONNECT n{number}.evil.test:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        writers.append(writer)
    return writers


async def test_names_that_are_never_answered_hold_up_only_who_asks(
    net: Net, silence: _SilentNameServer
) -> None:
    await net.proxy("*.evil.test")
    writers = await _ask_for_names(net.port, 60)
    for _ in range(names.LOOKUPS_OF_A_SANDBOX):
        await asyncio.to_thread(silence.asked.acquire)
    # The threads that the host works on are free (there are fewer than 60), and those of others.
    async with asyncio.timeout(_SECONDS):
        await asyncio.gather(*(asyncio.to_thread(int) for _ in range(60)))
    assert silence.count == names.LOOKUPS_OF_A_SANDBOX
    await net.proxy("*.evil.test")
    writers += await _ask_for_names(net.port, 1)
    assert await asyncio.to_thread(silence.asked.acquire, timeout=_SECONDS)
    for writer in writers:
        writer.close()


async def test_it_would_hold_up_the_host_on_the_threads_of_its_loop(
    silence: _SilentNameServer,
) -> None:
    loop = asyncio.get_running_loop()
    held = [loop.run_in_executor(None, silence, "n.evil.test", 443) for _ in range(60)]
    for _ in range(2):
        silence.asked.acquire()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.to_thread(int)
    silence.end.set()
    await asyncio.gather(*held, return_exceptions=True)


async def test_lookups_are_bounded_for_all_together(
    net: Net, silence: _SilentNameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_threads", threading.BoundedSemaphore(1))
    await net.proxy("*.evil.test")
    writers = await _ask_for_names(net.port, 1)
    await asyncio.to_thread(silence.asked.acquire)
    answer = await net.send("CONNECT other.evil.test:443 HTTP/1.1\nHost: x\n\n")
    assert answer.startswith(b"HTTP/1.1 502")
    for writer in writers:
        writer.close()
    silence.end.set()


async def test_refusals_do_not_fill_the_log(net: Net) -> None:
    await net.proxy("granted.test")
    long = "x" * 5000
    for number in range(proxy.LOGGED_REFUSALS + 5):
        await net.send(f"GET http://{long}{number}/ HTTP/1.1\nHost: h\n\n")
    assert len(net.services.lines) == proxy.LOGGED_REFUSALS
    assert max(map(len, net.services.lines)) < 2 * proxy.LOGGED_LENGTH
    assert "further refusals are not logged" in net.services.lines[-1]


async def test_who_is_slow_holds_up_only_its_own_connection(net: Net) -> None:
    backend = Backend(b"public")
    port = await net.serve(backend)
    await net.proxy("127.0.0.1", private=("127.0.0.0/8",))
    slow = [await asyncio.open_connection("127.0.0.1", net.port) for _ in range(50)]
    for _, writer in slow:
        writer.write(b"GET http://127.0.0.1/ HTTP/1.1\r\nX: ")
    request = f"GET http://127.0.0.1:{port}/ HTTP/1.1\nHost: h\n\n"
    assert b"public" in await net.send(request)
    for _, writer in slow:
        writer.close()


async def test_a_head_without_end_is_refused(net: Net) -> None:
    await net.proxy("*")
    answer = await net.send(b"GET http://example.com/ HTTP/1.1\r\n" + b"X: " + b"y" * 200_000)
    assert answer == b""
