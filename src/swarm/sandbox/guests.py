"""What every guest is told, whatever it runs in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from swarm import sandbox
from swarm.sandbox.ports import Limits, SandboxRequest

GUEST: Final = Path(sandbox.__file__).parent / "guest"
"""The guest as a program: ``python -I <this folder>``."""
NODE_GUEST: Final = "node_guest.mjs"
_MEBIBYTE: Final = 1024 * 1024


def guest_variables(request: SandboxRequest, wire: int) -> dict[str, str]:
    """The variables that a guest reads.

    Args:
        wire: the guest's descriptor of the wire.
    """
    program = request.program
    return {
        "SWARM_WIRE_FD": str(wire),
        "SWARM_RUNTIME": program.runtime,
        "SWARM_ENTRY": json.dumps(program.entry),
        "SWARM_MAX_OUTPUT_BYTES": str(request.limits.output_bytes),
        # What is imported may wait for its call. A connection would grow stale meanwhile, and
        # nobody would be there to be told what it reached.
        "SWARM_LOAD": "at_call" if request.network else "at_once",
    }


def node_options(limits: Limits) -> list[str]:
    """Three quarters of the memory for V8's heap; the rest is for buffers and code."""
    heap = max(limits.memory_bytes * 3 // 4 // _MEBIBYTE, 16)
    return [f"--max-old-space-size={heap}"]
