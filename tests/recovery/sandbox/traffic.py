"""Calls that prove what they did, on a host that something happens to.

As a program it is such a host, to be killed: ``traffic.py <folder>`` prints its zygote's pid when
its pool is warm, and goes on calling.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import Outcome
from tests.contract.sandbox.calling import Caller, limits

AT_ONCE = 3
TIMEOUT_SECONDS = 5.0
GRACE_SECONDS = 20.0
"""What a busy machine may take beyond a time limit."""
REFUSED = "refused"
HANDLER = """
import hashlib, time

def handler(inputs):
    time.sleep(inputs["seconds"])
    return hashlib.sha256(inputs["nonce"].encode()).hexdigest()
"""


async def run(call: Caller, rng: random.Random, count: int) -> Counter[str]:
    """How so many calls ended, each within its time. One that is reported done was.

    One in ten would never end by itself.
    """
    request = call.request(HANDLER, limits=limits(timeout_seconds=TIMEOUT_SECONDS))
    brief = call.request(HANDLER, limits=limits(timeout_seconds=0.5))
    found: Counter[str] = Counter()
    left = iter(range(count))

    async def go_on() -> None:
        for _ in left:
            nonce, hangs = str(rng.random()), rng.random() < 0.1
            seconds = 1000.0 if hangs else rng.uniform(0, 0.03)
            start = time.monotonic()
            try:
                result = await call.run(
                    brief if hangs else request, {"nonce": nonce, "seconds": seconds}
                )
            except SandboxUnavailable:
                found[REFUSED] += 1  # It was not called.
                continue
            assert time.monotonic() - start < TIMEOUT_SECONDS + GRACE_SECONDS
            found[result.outcome] += 1
            if result.outcome is Outcome.OK:
                assert not hangs
                assert result.outputs == hashlib.sha256(nonce.encode()).hexdigest()
            elif result.outcome is Outcome.ERROR:
                assert "was killed by SIGKILL" in str(result.error), result
            else:
                expected = {Outcome.KILLED, *({Outcome.TIMEOUT} if hangs else {})}
                assert result.outcome in expected, result

    await asyncio.gather(*(go_on() for _ in range(AT_ONCE)))
    return found


def children(pid: int) -> list[int]:
    """The children of a process that may be gone."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return list(map(int, text.split()))


def kill_child(pid: int, parent: int) -> bool:
    """Kill a process if it still is that one's child, and nobody else who got its number."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if pid not in children(parent):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


async def main(folder: Path) -> None:
    settings = Settings(home=folder / "home")
    kernel = NamespaceBackend(settings)
    call = Caller(folder, PooledBackend(kernel, settings))
    rng = random.Random(0)
    await run(call, rng, 10)
    sys.stdout.write(f"{kernel.zygote_pid}\n")
    sys.stdout.flush()
    await run(call, rng, 1_000_000)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
