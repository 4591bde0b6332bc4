"""One client connection of the egress proxy: its requests, one after the other."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

import h11

from swarm.kernel.errors import InvalidError
from swarm.sandbox.egress.names import Names
from swarm.sandbox.egress.policy import Address, EgressPolicy, split_authority

IDLE_SECONDS: Final = 300.0
"""A connection on which nothing moves for this long is closed."""
CONNECT_SECONDS: Final = 30.0
"""Time to resolve a name and to connect to it, all its addresses together."""
MAX_HEAD_BYTES: Final = 64 * 1024
_CHUNK: Final = 64 * 1024
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
    }
)
"""Meant for one connection only (RFC 9110 section 7.6.1). h11 frames bodies itself, so
transfer-encoding stays."""


_PROXY_ERRORS: Final = {
    400: "http_request_error",
    403: "http_request_denied",
    502: "destination_unavailable",
}
"""Kinds of refusal by status, as RFC 9209 section 2.3 names them."""


class Refusal(Exception):
    """A request that is not served. ``message`` is for the agent's author."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class Exchange:
    """Serves the requests of one connection, each checked anew."""

    def __init__(
        self,
        policy: EgressPolicy,
        names: Names,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._policy = policy
        self._names = names
        self._reader = reader
        self._writer = writer
        self._client = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def serve(self) -> bool:
        """Serve one request; whether another may follow.

        Raises:
            Refusal: the request is not allowed or cannot be served; nothing was answered yet.
            OSError, TimeoutError, h11.ProtocolError: the connection is of no more use.
        """
        event = await self._next(self._client, self._reader)
        if not isinstance(event, h11.Request):
            return False
        if event.method == b"CONNECT":
            await self._tunnel(event)
            return False
        await self._forward(event)
        if self._client.our_state is h11.DONE and self._client.their_state is h11.DONE:
            self._client.start_next_cycle()
            return True
        return False

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with the refusal and end the connection."""
        if self._client.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = f"{refusal.message}\n".encode()
        response = h11.Response(
            status_code=refusal.status,
            reason=refusal.reason.encode(),
            headers=[
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", str(len(body))),
                # RFC 9209: tells the proxy's own answer from one of the host that was asked.
                ("Proxy-Status", f"swarm; error={_PROXY_ERRORS[refusal.status]}"),
                ("Connection", "close"),
            ],
        )
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._client.send(event) or b"")
        await self._writer.drain()

    async def _tunnel(self, request: h11.Request) -> None:
        host, port = _authority(request.target.decode("latin-1"), None)
        upstream_reader, upstream_writer = await self._connect(host, port)
        try:
            answer = h11.Response(status_code=200, reason=b"Connection established", headers=[])
            self._writer.write(self._client.send(answer) or b"")
            early, _ = self._client.trailing_data
            upstream_writer.write(early)
            await _relay(
                (self._reader, upstream_writer),
                (upstream_reader, self._writer),
            )
        finally:
            upstream_writer.close()

    async def _forward(self, request: h11.Request) -> None:
        host, port, target, authority = _absolute_form(request)
        upstream_reader, upstream_writer = await self._connect(host, port)
        upstream = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            headers = [
                (b"Host", authority.encode("latin-1")),
                *_end_to_end(request.headers, without=b"host"),
                (b"Connection", b"close"),
            ]
            head = h11.Request(method=request.method, target=target, headers=headers)
            upstream_writer.write(upstream.send(head) or b"")
            sending = asyncio.ensure_future(self._send_body(upstream, upstream_writer))
            try:
                await self._return_response(upstream, upstream_reader)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            upstream_writer.close()

    async def _send_body(self, upstream: h11.Connection, writer: asyncio.StreamWriter) -> None:
        while True:
            event = await self._next(self._client, self._reader)
            if not isinstance(event, h11.Data | h11.EndOfMessage):
                return
            writer.write(upstream.send(event) or b"")
            await writer.drain()
            if isinstance(event, h11.EndOfMessage):
                return

    async def _return_response(
        self, upstream: h11.Connection, reader: asyncio.StreamReader
    ) -> None:
        while True:
            event = await self._next(upstream, reader)
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    raise h11.RemoteProtocolError("the upgrade was not asked for")
                continue
            if isinstance(event, h11.Response):
                headers = _end_to_end(event.headers)
                event = h11.Response(
                    status_code=event.status_code, reason=event.reason, headers=headers
                )
            elif not isinstance(event, h11.Data | h11.EndOfMessage):
                raise h11.RemoteProtocolError("the server closed in the middle of its answer")
            self._writer.write(self._client.send(event) or b"")
            await self._writer.drain()
            if isinstance(event, h11.EndOfMessage):
                return

    async def _next(self, connection: h11.Connection, reader: asyncio.StreamReader) -> object:
        while True:
            event = connection.next_event()
            if event is not h11.NEED_DATA:
                return event
            if connection is self._client and connection.they_are_waiting_for_100_continue:
                go_ahead = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(connection.send(go_ahead) or b"")
            async with asyncio.timeout(IDLE_SECONDS):
                connection.receive_data(await reader.read(_CHUNK))

    async def _connect(
        self, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a host that is granted, at an address that was checked.

        Raises:
            Refusal: it is not granted, private, or cannot be reached.
        """
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if not self._policy.is_granted(host, port):
            raise Refusal(
                403,
                f"{shown} is not granted",
                f"network access to {shown} is not granted to this agent: add `{host}` to "
                "`network:` in its agent.yaml and register it again",
            )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = await self._names.addresses(host, port)
                allowed = [
                    address
                    for address in addresses
                    if self._policy.may_connect(host, port, address)
                    and (self._policy.is_allowed_private(address) or not _is_own(address))
                ]
                if addresses and not allowed:
                    raise _private_refusal(shown, addresses)
                return await _connect_first(allowed, port)
        except (OSError, TimeoutError) as error:
            reason = "timed out" if isinstance(error, TimeoutError) else str(error)
            raise Refusal(502, "cannot reach it", f"{shown} cannot be reached: {reason}") from None


def _private_refusal(shown: str, addresses: list[Address]) -> Refusal:
    listed = ", ".join(map(str, addresses))
    return Refusal(
        403,
        f"{shown} is a private address",
        f"{shown} leads to an address that is not public ({listed}), which agents may not reach; "
        "the operator can allow its network with SWARM_ALLOWED_PRIVATE_NETWORKS, and the agent "
        "must name the host (`*` means public addresses only)",
    )


def _authority(text: str, default_port: int | None) -> tuple[str, int]:
    try:
        host, port = split_authority(text, default_port)
    except InvalidError as error:
        raise Refusal(400, "bad target", error.message) from None
    if port is None or not host or "*" in host:
        raise Refusal(400, "bad target", f"{text!r} is not host:port")
    return host, port


def _absolute_form(request: h11.Request) -> tuple[str, int, str, str]:
    """Host, port, path with query, and authority of a request to a proxy."""
    try:
        parts = urlsplit(request.target.decode("latin-1"))
        netloc = parts.netloc
    except ValueError:
        raise Refusal(400, "bad target", "the request's target is not a URL") from None
    if parts.scheme.lower() != "http" or not netloc or "@" in netloc:
        raise Refusal(
            400, "bad target", "this is a proxy: ask for http://host/path, or use CONNECT"
        )
    host, port = _authority(netloc, 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return host, port, target, netloc


def _end_to_end(headers: h11._headers.Headers, without: bytes = b"") -> list[tuple[bytes, bytes]]:
    """The headers that are meant for the other end, not for this connection."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    dropped = _HOP_BY_HOP | named | {without}
    return [(name, value) for name, value in headers if name not in dropped]


def _is_own(address: Address) -> bool:
    """Whether an address is this machine's own: packets to it would not leave the machine.

    Connecting a datagram socket only asks for the route; it sends nothing.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return False
        return ipaddress.ip_address(probe.getsockname()[0]) == address


async def _connect_first(
    addresses: list[Address], port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure = OSError("it has no address")
    for address in addresses:
        try:
            return await asyncio.open_connection(str(address), port)
        except OSError as error:
            failure = error
    raise failure


async def _relay(*directions: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Carry bytes both ways until both ends are done, or nothing moves for too long."""
    tasks = [asyncio.ensure_future(_pump(*direction)) for direction in directions]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            data = await reader.read(_CHUNK)
        if not data:
            break
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
