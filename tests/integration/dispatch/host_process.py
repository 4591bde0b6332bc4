"""A host for the tests: ``host_process.py <folder> <role> [--heir]``.

Prints its id once it has joined, serves until it is killed or a line comes on stdin, and leaves.
With ``--heir`` it first starts a process that inherits its lock, and prints that one's id too.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

from swarm.dispatch.local_hosts import Emit, HostLease, LocalHosts
from swarm.kernel.errors import InputError


async def handle(method: str, params: dict[str, Any], emit: Emit) -> Any:
    match method:
        case "echo":
            return params
        case "count":
            for number in range(params["to"]):
                emit({"number": number})
            return None
        case "refuse":
            raise InputError("no", where="here", remedy="ask another")
        case "forever":
            emit({"started": True})
            await asyncio.Event().wait()
    raise KeyError(method)


def start_heir(lease: HostLease) -> int:
    process = subprocess.Popen(
        ["/bin/sleep", "1000"], pass_fds=[lease.lock_descriptor], stdout=subprocess.DEVNULL
    )
    return process.pid


async def main(folder: Path, role: str, heir: bool) -> None:
    lease = await LocalHosts(folder).join(handle, role)
    words = [lease.id, *([str(start_heir(lease))] if heir else [])]
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    await lease.leave()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], "--heir" in sys.argv))
