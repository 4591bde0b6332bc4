"""A relay between a client and a server, which can cut their connections or fall silent."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Relay:
    """Passes bytes on, each way, until it is told otherwise."""

    def __init__(self, port: int) -> None:
        """``port`` is the server's, on this machine."""
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.passed = 0
        """Bytes that went from the server to clients."""
        self._cuts: list[int] = []
        self._silent = threading.Event()
        self._refusing = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, *counts: int) -> None:
        """Cut a connection once that many bytes have come over it from the server: the first one
        after the first count, and so on."""
        with self._lock:
            self._cuts += counts

    def fall_silent(self) -> None:
        """Take what comes, and pass nothing on."""
        self._silent.set()

    def refuse(self) -> None:
        """Cut every connection at once, those that stand and those that come."""
        self._refusing = True
        with self._lock:
            for each in self._open:
                _cut(each)

    def heal(self) -> None:
        self._refusing = False
        self._silent.clear()

    def close(self) -> None:
        self._listener.close()
        self.refuse()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                if self._refusing:
                    _cut(client)
                    continue
                server = socket.create_connection(self._target)
                with self._lock:
                    self._open |= {client, server}
                    limit = self._cuts.pop(0) if self._cuts else None
                for source, target, most in ((client, server, None), (server, client, limit)):
                    pump = threading.Thread(
                        target=self._pump, args=(source, target, most, client), daemon=True
                    )
                    pump.start()

    def _pump(
        self, source: socket.socket, target: socket.socket, most: int | None, client: socket.socket
    ) -> None:
        count = 0
        with suppress(OSError):
            while data := source.recv(65_536):
                if self._silent.is_set():
                    continue
                if most is not None and count + len(data) > most:
                    target.sendall(data[: most - count])
                    break
                target.sendall(data)
                count += len(data)
                if target is client:
                    self.passed += len(data)
        _cut(source)
        _cut(target)
        with self._lock:
            self._open -= {source, target}


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
