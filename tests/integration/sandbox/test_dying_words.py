"""What a zygote says before it ends is heard, also where it ends before it has read anything."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

from swarm.sandbox.linux.zygote_client import Zygote

REFUSED = """
import socket, sys
control = socket.socket(fileno=int(sys.argv[1]))
control.send(b'{"event": "failed", "layer": "user-namespace", "errno": 1, "detail": "refused"}')
"""


def one_that_has_ended() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A process that said what was refused and ended, and the host's end of its socket."""
    host, guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    host.setblocking(False)
    host.send(b"{}")
    with guest:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", REFUSED, str(guest.fileno())],
            stderr=subprocess.PIPE,
            pass_fds=[guest.fileno()],
        )
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return host, process


async def test_a_refusal_is_told_though_the_configuration_was_never_read() -> None:
    zygote = Zygote(*one_that_has_ended())
    async with asyncio.timeout(10):
        answer = await zygote._configured
        await zygote.close()
    assert answer["layer"] == "user-namespace"
