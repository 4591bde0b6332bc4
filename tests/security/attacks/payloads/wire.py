"""Attacks on the host's end of the wire, past what the guest would send."""

import array
import os
import select
import socket
import struct
import time

from system import Stopped

_WIRE = 3
_TRIES = 8


def _frame(body):
    return len(body).to_bytes(4, "big") + body


def _hand_over(wire, descriptor):
    """Send a descriptor with a harmless message: who takes none has to close it."""
    body = b'{"jsonrpc":"2.0","method":"log","params":{"level":"info","message":"x"}}'
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
    message, ancillary = [_frame(body)], [rights]
    wire.sendmsg(message, ancillary)
    os.close(descriptor)


def _stuck_connection():
    """A connection whose close waits until its data is taken, and who does not take it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
    client.setblocking(False)
    # Until nothing moves any more, for the receiver's room grows at first.
    while select.select([], [client], [], 0.2)[1]:
        client.send(bytes(65536))
    return client.detach(), accepted


def lingering_socket(targets):
    """Have the host close it last, so that it is the host that waits."""
    wire = socket.socket(fileno=os.dup(_WIRE))
    wire.settimeout(0.5)
    for _ in range(_TRIES):
        descriptor, accepted = _stuck_connection()
        started = time.monotonic()
        _hand_over(wire, descriptor)
        if time.monotonic() - started > 0.5:
            continue  # The host was so quick that it was not the last.
        wire.sendall(_frame(b'{"jsonrpc":"2.0","id":7,"method":"x","params":{}}'))
        try:
            wire.recv(65536)
        except TimeoutError:
            accepted.close()
            return "the host waits for a connection of the sandbox's to end"
    raise Stopped("answered")
