"""The network of a sandbox: none, or through the proxy to what was granted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from tests.contract.sandbox.calling import Caller


@dataclass
class Origin:
    """A server on this machine, in plain HTTP and in TLS."""

    port: int = 0
    tls_port: int = 0
    certificate: Path = Path()
    heads: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                body = b"origin:" + head.split(b"\r\n")[0]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Origin]:
    made = Origin(certificate=tmp_path / "certificate.pem")
    key = tmp_path / "key.pem"
    openssl = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes", "-keyout", key, "-out", made.certificate, "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost", stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await openssl.wait() == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, key)
    plain = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    secure = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.port = plain.sockets[0].getsockname()[1]
    made.tls_port = secure.sockets[0].getsockname()[1]
    yield made
    plain.close()
    secure.close()


@pytest.fixture
async def open_call(tmp_path: Path) -> AsyncIterator[Caller]:
    """An operator that lets grants reach this machine's loopback."""
    settings = Settings(home=tmp_path / "home", allowed_private_networks=("127.0.0.0/8",))
    backend = NamespaceBackend(settings)
    yield Caller(tmp_path, backend)
    await backend.close()


GET = """
    import urllib.request, urllib.error, ssl
    def handler(i):
        context = None
        if i.get("certificate"):
            context = ssl.create_default_context(cadata=i["certificate"])
        try:
            with urllib.request.urlopen(i["url"], context=context, timeout=20) as answer:
                return {"body": answer.read().decode()}
        except urllib.error.HTTPError as error:
            return {"status": error.code, "body": error.read().decode()}
        except urllib.error.URLError as error:
            return {"error": str(error.reason)}
"""
FETCH = """
    import http from "node:http";
    import https from "node:https";
    export async function handler(i) {
      const body = {};
      for (const url of i.urls) {
        try { body[url] = await (await fetch(url)).text(); }
        catch (error) { body[url] = String(error.cause?.message ?? error); }
      }
      const got = (url) => new Promise((resolve) => {
        const get = url.startsWith("https") ? https.get : http.get;
        get(url, (answer) => {
          let text = ""; answer.on("data", (d) => text += d); answer.on("end", () => resolve(text));
        }).on("error", (error) => resolve(error.message));
      });
      for (const url of i.urls) body["get " + url] = await got(url);
      return body;
    }
"""


async def test_without_a_grant_nothing_answers(call: Caller) -> None:
    code = """
        import errno, os, socket
        def attempt(family, kind, address):
            try:
                socket.socket(family, kind).connect(address)
                return "connected"
            except OSError as error: return errno.errorcode[error.errno]
        def handler(i):
            try: name = socket.getaddrinfo("example.com", 80)
            except OSError: name = None
            return {
                "loopback": attempt(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 3128)),
                "public": attempt(socket.AF_INET, socket.SOCK_STREAM, ("1.1.1.1", 80)),
                "udp": attempt(socket.AF_INET, socket.SOCK_DGRAM, ("1.1.1.1", 53)),
                "v6": attempt(socket.AF_INET6, socket.SOCK_STREAM, ("2606:4700:4700::1111", 80)),
                "name": name,
                "interfaces": [row.split(":")[0].strip() for row in open("/proc/net/dev")][2:],
                "proxy": [name for name in os.environ if "proxy" in name.lower()],
            }
    """
    result = await call(code)
    assert result.outputs == {
        "loopback": "ENETUNREACH",
        "public": "ENETUNREACH",
        "udp": "ENETUNREACH",
        "v6": "EADDRNOTAVAIL",
        "name": None,
        "interfaces": ["lo"],
        "proxy": [],
    }, result.error


async def test_a_granted_host_is_reached(open_call: Caller, origin: Origin) -> None:
    grant = ("localhost",)
    plain = {"url": f"http://localhost:{origin.port}/a?b=1"}
    result = await open_call(GET, plain, network=grant)
    assert result.outputs == {"body": "origin:GET /a?b=1 HTTP/1.1"}, result
    assert f"Host: localhost:{origin.port}".encode() in origin.heads[-1]
    secure = {
        "url": f"https://localhost:{origin.tls_port}/s",
        "certificate": origin.certificate.read_text(),
    }
    result = await open_call(GET, secure, network=grant)
    assert result.outputs == {"body": "origin:GET /s HTTP/1.1"}, result


async def test_node_reaches_what_is_granted(open_call: Caller, origin: Origin) -> None:
    urls = [f"http://localhost:{origin.port}/p", f"https://localhost:{origin.tls_port}/s"]
    refused = f"http://other.test:{origin.port}/"
    files = {"main.mjs": FETCH, "ca.pem": origin.certificate.read_text()}
    result = await open_call(
        files,
        {"urls": [*urls, refused]},
        runtime="node",
        network=("localhost",),
        environment={"NODE_EXTRA_CA_CERTS": "/package/ca.pem"},
    )
    assert result.outputs is not None, result
    for url, path in zip(urls, ("/p", "/s"), strict=True):
        assert result.outputs[url] == f"origin:GET {path} HTTP/1.1"
        assert result.outputs[f"get {url}"] == f"origin:GET {path} HTTP/1.1"
    for answer in (result.outputs[refused], result.outputs[f"get {refused}"]):
        assert "other.test" in answer
        assert "not granted" in answer


async def test_curl_goes_through_the_proxy(open_call: Caller, origin: Origin) -> None:
    entry = ("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}",
             f"http://localhost:{origin.port}/")  # fmt: skip
    result = await open_call({"unused": ""}, runtime="command", entry=entry, network=("localhost",))
    assert result.outputs == 200, result


async def test_what_is_not_granted_is_refused_and_logged(open_call: Caller, origin: Origin) -> None:
    url = f"http://localhost:{origin.port}/"
    result = await open_call(GET, {"url": url}, network=("api.example.com",))
    assert result.outputs["status"] == 403
    told = f"network access to localhost:{origin.port} is not granted to this agent"
    assert told in result.outputs["body"]
    assert "add `localhost` to `network:`" in result.outputs["body"]
    assert told in open_call.services.text
    assert origin.heads == []


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.1", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_private_addresses_are_refused_with_a_grant(
    call: Caller, origin: Origin, host: str
) -> None:
    url = f"http://{host}:{origin.port}/"
    granted = (host.strip("[]"), "*")
    result = await call(GET, {"url": url}, network=granted)
    assert result.outputs["status"] in (403, 502), result
    assert origin.heads == []


async def test_a_star_does_not_reach_private_networks(open_call: Caller, origin: Origin) -> None:
    url = f"http://localhost:{origin.port}/"
    result = await open_call(GET, {"url": url}, network=("*",))
    assert result.outputs["status"] == 403
    assert "not public" in result.outputs["body"]


async def test_only_the_proxy_answers_inside(open_call: Caller, origin: Origin) -> None:
    code = """
        import errno, socket
        def handler(i):
            found = {}
            for name, address in i["addresses"].items():
                try:
                    socket.create_connection(tuple(address), timeout=5)
                    found[name] = "connected"
                except OSError as error: found[name] = errno.errorcode[error.errno]
            return found
    """
    addresses = {
        "proxy": ["127.0.0.1", 3128],
        "origin": ["127.0.0.1", origin.port],
        "public": ["1.1.1.1", 80],
    }
    result = await open_call(code, {"addresses": addresses}, network=("localhost",))
    assert result.outputs == {
        "proxy": "connected",
        "origin": "ECONNREFUSED",
        "public": "ENETUNREACH",
    }
