"""A sandbox's own channel to the host: lines of JSON, with descriptors beside them."""

from __future__ import annotations

import array
import json
import socket
from typing import Any

_PLAN_LIMIT = 16 * 1024 * 1024


def read_plan(channel: socket.socket) -> dict[str, Any]:
    """The first line, which the host wrote before it asked for the sandbox.

    Raises:
        EOFError: the host is gone.
    """
    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = channel.recv(65_536)
        if not chunk or len(data) > _PLAN_LIMIT:
            raise EOFError("the host closed the channel before the plan was complete")
        data += chunk
    plan: dict[str, Any] = json.loads(data)
    return plan


def send(channel: socket.socket, message: dict[str, object], descriptors: list[int]) -> None:
    data = json.dumps(message).encode() + b"\n"
    ancillary = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    channel.sendmsg([data], [ancillary] if descriptors else [])
