"""What the host's ends of a session take."""

from __future__ import annotations

import asyncio
import os
import platform
import socket

import pytest

from swarm.sandbox.session import open_ends

_VERSION = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])


@pytest.mark.skipif(_VERSION < (6, 16), reason="this kernel cannot refuse descriptors")
def test_descriptors_are_refused_by_the_wire() -> None:
    host, guest = open_ends()
    wire = socket.socket(fileno=os.dup(guest.wire))
    with wire, pytest.raises(PermissionError):
        socket.send_fds(wire, [b"x"], [0])
    host.close()
    guest.close()


async def test_what_is_sent_without_any_arrives() -> None:
    host, guest = open_ends()
    with socket.socket(fileno=os.dup(guest.wire)) as wire:
        wire.sendall(b"x")
    assert await asyncio.to_thread(host.wire.recv, 1) == b"x"
    host.close()
    guest.close()
