"""What stands for the host's: a process with a secret, servers, sockets. Standard library only.

As a program (``python decoys.py folder``) it serves on this machine, harmlessly; the stage calls
:func:`serve` within its own namespaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

SECRET = "the-hosts-secret"
BANNER = f"{SECRET}: reached".encode()


def serve(folder: str, addresses: list[tuple[str, int]], name: str) -> None:
    """Serve for ever; ``<folder>/<name>.json`` then tells where.

    Args:
        folder: holds ``data/``, a live input, and ``shown/``; both get a socket.
        addresses: further places to serve at over TCP, and over UDP too.
        name: of what is written, and part of the abstract sockets' names.
    """
    # It ends with whoever started it, and heeds no attack before that.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    listeners = _pair()
    port = listeners[0].getsockname()[1]
    datagrams = []
    for host, number in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listeners.append(_listener(family, (host, number)))
        datagrams.append(_bound(family, (host, number)))
    outside = f"{folder}/shown/{name}.socket"
    for path in (outside, f"{folder}/data/{name}.socket"):
        listeners.append(_listener(socket.AF_UNIX, path))
        os.chmod(path, 0o777)
    mailbox = f"{folder}/data/{name}.datagrams"
    datagrams.append(_bound(socket.AF_UNIX, mailbox))
    os.chmod(mailbox, 0o777)
    abstract = f"swarm-attacked-{name}-{os.urandom(8).hex()}"
    listeners.append(_listener(socket.AF_UNIX, "\0" + abstract))
    datagrams.append(_bound(socket.AF_UNIX, f"\0{abstract}-datagrams"))
    # Kept open, so that a writer finds a reader; for writing too, since it would never block again
    # once its last writer had gone.
    fifo = os.open(f"{folder}/data/fifo", os.O_RDWR | os.O_NONBLOCK)
    targets = {
        "tcp": port,
        "pids": [os.getpid(), os.getppid()],
        "socket": outside,
        "input_socket": f"/inputs/data/{name}.socket",
        "input_datagrams": f"/inputs/data/{name}.datagrams",
        "abstract": abstract,
        "abstract_datagrams": f"{abstract}-datagrams",
        "host_name": socket.gethostname(),
    }
    written = Path(folder, f"{name}.json.new")
    written.write_text(json.dumps(targets))
    written.rename(f"{folder}/{name}.json")
    _answer(listeners, datagrams, fifo)


def _pair() -> list[socket.socket]:
    """Listeners at one port of both loopback addresses, which others may be using too."""
    while True:
        first = _listener(socket.AF_INET, ("127.0.0.1", 0))
        try:
            return [first, _listener(socket.AF_INET6, ("::1", first.getsockname()[1]))]
        except OSError as error:
            first.close()
            if error.errno != errno.EADDRINUSE:
                raise


def _listener(family: socket.AddressFamily, address: object) -> socket.socket:
    server = socket.socket(family)
    server.setblocking(False)
    server.bind(address)  # type: ignore[arg-type]
    server.listen(16)
    return server


def _bound(family: socket.AddressFamily, address: object) -> socket.socket:
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.setblocking(False)
    server.bind(address)  # type: ignore[arg-type]
    return server


def _answer(listeners: list[socket.socket], datagrams: list[socket.socket], fifo: int) -> None:
    while True:
        ready = select.select([*listeners, *datagrams, fifo], [], [])[0]
        for server in ready:
            # Whatever an attacker does must not end what it attacks: it may be gone before it is
            # answered, or not take the answer. And all stages have one FIFO, so that another
            # stage's decoy may have read first what made it readable.
            with contextlib.suppress(OSError):
                _answer_one(server, listeners, fifo)


def _answer_one(server: socket.socket | int, listeners: list[socket.socket], fifo: int) -> None:
    """Answer what is there; never waits. Raises OSError where nothing is, or nobody takes it."""
    if isinstance(server, int):
        os.read(fifo, 4096)
    elif server in listeners:
        connection, _ = server.accept()
        with connection:
            connection.setblocking(False)
            connection.sendall(BANNER)
    else:
        _, sender = server.recvfrom(4096)
        if sender:
            server.sendto(BANNER, sender)


if __name__ == "__main__":
    serve(sys.argv[1], [], sys.argv[2])
