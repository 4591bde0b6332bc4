"""The egress proxy of one sandbox: HTTP CONNECT and plain HTTP, by permission only.

It runs in the host, and accepts on a socket that was made inside the sandbox's network namespace,
so it is the one thing there that leads out. Sources: RFC 9110 section 9.3.6 (CONNECT), RFC 9112
section 3.2.2 (absolute form).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

import h11

from swarm.kernel.errors import SwarmError
from swarm.kernel.settings import Settings
from swarm.sandbox.egress.exchange import Exchange, Refusal
from swarm.sandbox.egress.names import Names
from swarm.sandbox.egress.policy import EgressPolicy
from swarm.sandbox.ports import GuestServices

MAX_CONNECTIONS: Final = 128
"""Connections that one sandbox may have open at once."""
LOGGED_REFUSALS: Final = 100
"""Refusals that are logged for one sandbox; more of them are not."""
LOGGED_LENGTH: Final = 500
"""Characters of a refusal that are logged; it repeats what was asked for."""


class EgressProxy:
    """Serves one sandbox. Make one with :meth:`start`."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy
        self._services: GuestServices | None = None
        self._names = Names()
        self._early: list[str] = []
        self._logged = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, listener: int, granted: Sequence[str], settings: Settings) -> EgressProxy:
        """Serve on ``listener``, a listening socket's descriptor, which becomes the proxy's.

        Raises:
            InvalidError: a granted pattern or an allowed network is malformed.
        """
        accepting = socket.socket(fileno=listener)
        try:
            proxy = cls(EgressPolicy(granted, settings.allowed_private_networks))
        except SwarmError:
            accepting.close()
            raise
        accepting.setblocking(False)
        proxy._server = await asyncio.start_server(proxy._accept, sock=accepting)
        return proxy

    async def serve(self, connection: socket.socket) -> None:
        """Serve a connection that came another way; it becomes the proxy's."""
        connection.setblocking(False)
        self._accept(*await asyncio.open_connection(sock=connection))

    def log_to(self, services: GuestServices) -> None:
        """Log refusals to this invocation from now on, those met before included."""
        self._services = services
        for text in self._early:
            services.log("log", "warning", text)
        self._early.clear()

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._connections) > MAX_CONNECTIONS:
                self._log(f"more than {MAX_CONNECTIONS} connections at once were refused")
                return
            exchange = Exchange(self._policy, self._names, reader, writer)
            while await self._serve_one(exchange):
                pass
        except (OSError, h11.ProtocolError, TimeoutError):
            return  # The peer is gone, silent or not speaking HTTP: closing says it all.
        finally:
            writer.close()

    async def _serve_one(self, exchange: Exchange) -> bool:
        """Serve a request; whether another may follow on this connection."""
        try:
            return await exchange.serve()
        except Refusal as refusal:
            self._log(refusal.message)
            await exchange.refuse(refusal)
            return False

    def _log(self, text: str) -> None:
        self._logged += 1
        if self._logged > LOGGED_REFUSALS:
            return
        if len(text) > LOGGED_LENGTH:
            text = f"{text[:LOGGED_LENGTH]} … [{len(text) - LOGGED_LENGTH} characters cut]"
        if self._logged == LOGGED_REFUSALS:
            text = f"{text} (further refusals are not logged)"
        if self._services is not None:
            self._services.log("log", "warning", text)
        else:
            self._early.append(text)
