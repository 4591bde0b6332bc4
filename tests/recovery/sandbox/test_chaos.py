"""What makes sandboxes is killed, or finds the disk full: no call hangs, none lies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import Outcome
from tests.contract.sandbox.calling import Caller, limits

DEADLINE_SECONDS = 60
COUNTING = """
import os, time
def handler(inputs):
    with open("/outputs/begun", "w"):
        pass
    time.sleep(inputs["seconds"])
    return {"number": inputs["number"]}
"""

HOST = """
import asyncio, sys
from pathlib import Path
from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.pool import PooledBackend
from tests.contract.sandbox.calling import Caller, limits

async def main(folder):
    settings = Settings(home=folder / "home")
    kernel = NamespaceBackend(settings)
    pool = PooledBackend(kernel, settings)
    call = Caller(folder, pool)
    request = call.request("import time\\ndef handler(i): time.sleep(i['seconds']); return {}",
                           limits=limits(timeout_seconds=600))
    for _ in range(3):
        await call.run(request, {"seconds": 0})
    while not pool.ready:
        await asyncio.sleep(0.01)
    running = [asyncio.create_task(call.run(request, {"seconds": 600})) for _ in range(2)]
    await asyncio.sleep(0.2)
    print(kernel.zygote_pid, flush=True)
    await asyncio.gather(*running)

asyncio.run(main(Path(sys.argv[1])))
"""

FULL_DISK = """
import asyncio, json, sys
from pathlib import Path
from swarm.kernel.errors import SwarmError
from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.pool import PooledBackend
from tests.contract.sandbox.calling import Caller

async def main(folder):
    settings = Settings(home=folder / "home")
    call = Caller(folder, PooledBackend(NamespaceBackend(settings), settings))
    code = "def handler(i): open('/tmp/x', 'w').write('x' * 9999); return {'n': i['n']}"
    request = call.request(code)
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    found = []
    for number in range(6):
        try:
            result = await call.run(request, {"n": number})
            found.append([result.outcome, result.outputs])
        except SwarmError as error:
            found.append(["refused", error.code])
    await call.backend.close()
    print(json.dumps(found))

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture
async def kernel(tmp_path: Path) -> NamespaceBackend:
    return NamespaceBackend(Settings(home=tmp_path / "home"))


@pytest.fixture
async def pool(kernel: NamespaceBackend) -> AsyncIterator[PooledBackend]:
    made = PooledBackend(kernel, Settings(pool_ready_per_package=2))
    yield made
    await made.close()


@pytest.fixture
def call(tmp_path: Path, pool: PooledBackend) -> Caller:
    return Caller(tmp_path, pool)


async def test_the_zygote_is_killed_again_and_again(call: Caller, kernel: NamespaceBackend) -> None:
    request = call.request(COUNTING, limits=limits(timeout_seconds=DEADLINE_SECONDS / 2))
    stop = asyncio.Event()

    async def kill() -> None:
        while not stop.is_set():
            await asyncio.sleep(0.3)
            if kernel.zygote_pid is not None:
                os.kill(kernel.zygote_pid, signal.SIGKILL)

    async def one(number: int) -> Outcome:
        for _ in range(100):
            try:
                result = await call.run(request, {"number": number, "seconds": 0.02})
            except SandboxUnavailable:
                continue  # The zygote died while it built this one: nothing was called.
            if result.outcome is Outcome.OK:
                assert result.outputs == {"number": number}
                return result.outcome
            assert result.outcome is Outcome.KILLED, result
        raise AssertionError("it never got through")

    killing = asyncio.create_task(kill())
    async with asyncio.timeout(DEADLINE_SECONDS):
        for number in range(0, 24, 3):
            await asyncio.gather(*(one(number + offset) for offset in range(3)))
    stop.set()
    await killing


async def test_a_filler_is_killed_while_it_builds(
    call: Caller, pool: PooledBackend, kernel: NamespaceBackend
) -> None:
    request = call.request(COUNTING, limits=limits(timeout_seconds=DEADLINE_SECONDS / 2))
    async with asyncio.timeout(DEADLINE_SECONDS):
        for number in range(12):
            result = await call.run(request, {"number": number, "seconds": 0})
            # One that was killed but is not dead yet may be given to a call, which is then told.
            assert result.outcome in (Outcome.OK, Outcome.KILLED), result
            # Whatever the zygote is building, or keeps, at this moment.
            for pid in children(kernel.zygote_pid or 0):
                end_process(pid)


async def test_nothing_outlives_its_host(tmp_path: Path) -> None:
    host = subprocess.Popen(  # noqa: ASYNC220 - it prints at once, and is killed below
        [sys.executable, "-c", HOST, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert host.stdout is not None
    zygote = int(await asyncio.to_thread(host.stdout.readline))
    below = [zygote, *children(zygote)]
    assert len(below) >= 4  # Two that run and one that waits, at least.
    host.kill()
    host.wait()
    host.stdout.close()
    ends = time.monotonic() + DEADLINE_SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in below):
        assert time.monotonic() < ends, "sandboxes outlived their host"
        await asyncio.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system that is small")
def test_a_full_disk_is_told_and_nothing_hangs(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        mount -t tmpfs -o size=2m,nr_inodes=200 swarm-full {tmp_path}
        exec {sys.executable} -c "$PROGRAM" {tmp_path}
        """
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
        env={**os.environ, "PROGRAM": FULL_DISK, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    for number, (outcome, outputs) in enumerate(json.loads(done.stdout)):
        # The folder of a sandbox is its own memory; what needs the disk says so.
        assert (outcome, outputs) == ("ok", {"n": number}) or outcome == "refused"


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return list(map(int, text.split()))


def end_process(pid: int) -> None:
    """Kill a process that may have ended by itself; the zygote reaps it."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
