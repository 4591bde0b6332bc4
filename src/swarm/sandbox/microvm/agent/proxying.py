"""Carries connections to the egress proxy: a listener here, the proxy itself at the host."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from .frames import CONNECTION, NUMBER, WINDOW
from .port import Port
from .watching import READ, WRITE, Watch

_CHUNK = 32 * 1024
_CONNECTIONS = 128


@dataclass
class Connection:
    socket: socket.socket
    number: int
    credit: int = WINDOW
    """Bytes that may still be sent to the host."""
    waiting: bytearray = field(default_factory=bytearray)
    is_ended: bool = False
    """Whether the host will send no more."""


class Proxying:
    """All connections of one invocation."""

    def __init__(self, port: Port, watch: Watch, address: int) -> None:
        self._port = port
        self._watch = watch
        self._connections: dict[int, Connection] = {}
        self._count = 0
        self._listener = socket.create_server(("127.0.0.1", address), backlog=64)
        self._listener.setblocking(False)
        watch.add(self._listener.fileno(), READ, self._accept)

    def take(self, data: bytes) -> None:
        """Bytes of the host for a connection."""
        connection = self._connections.get(NUMBER.unpack_from(data)[0])
        if connection is not None:
            connection.waiting += data[NUMBER.size :]
            self._write(connection)

    def end(self, number: int) -> None:
        """The host has closed its end."""
        connection = self._connections.get(number)
        if connection is not None:
            connection.is_ended = True
            self._write(connection)

    def credit(self, number: int, size: int) -> None:
        connection = self._connections.get(number)
        if connection is not None:
            connection.credit += size
            self._await(connection)

    def _accept(self, _: int) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return
        if len(self._connections) >= _CONNECTIONS:
            accepted.close()
            return
        accepted.setblocking(False)
        self._count += 1
        connection = Connection(accepted, self._count)
        self._connections[connection.number] = connection
        self._port.send_control(event="connect", number=connection.number)
        self._await(connection)

    def _await(self, connection: Connection) -> None:
        events = READ if connection.credit > 0 else 0
        events |= WRITE if connection.waiting else 0
        descriptor = connection.socket.fileno()
        if events:
            self._watch.add(descriptor, events, lambda _: self._act(connection))
        else:
            self._watch.drop(descriptor)

    def _act(self, connection: Connection) -> None:
        self._write(connection)
        if connection.number not in self._connections or connection.credit <= 0:
            return
        if self._port.is_busy:
            return
        try:
            data = connection.socket.recv(min(_CHUNK, connection.credit))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.credit -= len(data)
        self._port.send(CONNECTION, NUMBER.pack(connection.number) + data)
        self._await(connection)

    def _write(self, connection: Connection) -> None:
        while connection.waiting:
            try:
                sent = connection.socket.send(connection.waiting)
            except BlockingIOError:
                break
            except OSError:
                self._close(connection)
                return
            del connection.waiting[:sent]
            self._port.send_control(event="credit", number=connection.number, size=sent)
        if connection.is_ended and not connection.waiting:
            self._close(connection)
        else:
            self._await(connection)

    def _close(self, connection: Connection) -> None:
        self._watch.drop(connection.socket.fileno())
        connection.socket.close()
        del self._connections[connection.number]
        self._port.send_control(event="close", number=connection.number)
