"""The guest's end of the stream to the host."""

from __future__ import annotations

import json
import os
import select
import socket
from typing import Any

from .frames import CONTROL, FrameReader, frame, frames

PORT_NAME = "swarm"
VSOCK_PORT = 1024
_CHUNK = 64 * 1024
BUSY_BYTES = 256 * 1024


class HostGone(Exception):
    """The host has closed the stream."""


class Port:
    """A stream of frames over a non-blocking descriptor.

    Args:
        descriptor: an open stream.
        is_vsock: whether it is a vsock connection, which a restore cuts.
    """

    def __init__(self, descriptor: int, *, is_vsock: bool = False) -> None:
        self.descriptor = descriptor
        self._is_vsock = is_vsock
        os.set_blocking(descriptor, False)
        self._reader = FrameReader()
        self._waiting = bytearray()

    def reopen(self) -> None:
        """Take the host's next connection in place of the one that was cut.

        Raises:
            HostGone: there is no next one to be had.
        """
        if not self._is_vsock:
            raise HostGone
        new = accept_vsock()
        os.dup2(new, self.descriptor, inheritable=False)
        os.close(new)
        os.set_blocking(self.descriptor, False)
        self._reader = FrameReader()

    @property
    def has_output(self) -> bool:
        return bool(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether so much waits to be sent that nothing more should be read from elsewhere."""
        return len(self._waiting) >= BUSY_BYTES

    def send(self, kind: int, data: bytes) -> None:
        self._waiting += frames(kind, data)
        self.flush()

    def send_control(self, **message: Any) -> None:
        self._waiting += frame(CONTROL, json.dumps(message).encode())
        self.flush()

    def flush(self) -> None:
        """Write what can be written now."""
        while self._waiting:
            try:
                written = os.write(self.descriptor, self._waiting[:_CHUNK])
            except BlockingIOError:
                return
            except OSError:
                raise HostGone from None
            del self._waiting[:written]

    def drain(self) -> None:
        """Write all that waits, however long it takes."""
        while self._waiting:
            self._poll(select.POLLOUT)
            self.flush()

    def receive(self) -> None:
        """Read what is here now; :meth:`take` gives it."""
        try:
            data = os.read(self.descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            raise HostGone from None
        if not data:
            raise HostGone
        self._reader.feed(data)

    def take(self) -> tuple[int, bytes] | None:
        """The next of the frames that were received."""
        return self._reader.take()

    def wait_control(self) -> dict[str, Any]:
        """The next control message; frames before it are dropped."""
        self.drain()
        while True:
            while (found := self.take()) is not None:
                kind, data = found
                if kind == CONTROL:
                    message: dict[str, Any] = json.loads(data.decode())
                    return message
            self._poll(select.POLLIN)
            self.receive()

    def _poll(self, events: int) -> None:
        poller = select.poll()
        poller.register(self.descriptor, events)
        poller.poll()


def open_port() -> Port:
    """The virtio-serial port (QEMU), or else a listening vsock connection (Firecracker)."""
    folder = "/sys/class/virtio-ports"
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        with open(f"{folder}/{name}/name") as file:
            if file.read().strip() == PORT_NAME:
                return Port(os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC))
    return Port(accept_vsock(), is_vsock=True)


def accept_vsock() -> int:
    """The next connection of the host, as a descriptor."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listener:
        listener.bind((socket.VMADDR_CID_ANY, VSOCK_PORT))
        listener.listen(1)
        connection, _ = listener.accept()
        return connection.detach()
