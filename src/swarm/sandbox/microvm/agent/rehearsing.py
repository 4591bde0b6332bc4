"""Stands in for the host during a rehearsal."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from .frames import CONTROL, WIRE, frame
from .port import Port

_SEED = "00" * 64


class Stage:
    """A port whose other end is here, with what the host says on it.

    Args:
        rehearsal: ``environment`` and ``call``, as the host would send them.
    """

    def __init__(self, rehearsal: dict[str, Any]) -> None:
        self._rehearsal = rehearsal
        self._host, guest = socket.socketpair()
        self.port = Port(guest.detach())

    def send_start(self) -> None:
        start = {
            "op": "start",
            "time_ns": 2_000_000_000 * 10**9,
            "seed": _SEED,
            "inputs": False,
            "environment": self._rehearsal["environment"],
        }
        self._host.sendall(frame(CONTROL, json.dumps(start).encode()))

    def send_call(self) -> None:
        call = json.dumps(self._rehearsal["call"]).encode()
        self._host.sendall(frame(WIRE, len(call).to_bytes(4, "big") + call))

    def close(self) -> None:
        self._host.close()
        os.close(self.port.descriptor)
