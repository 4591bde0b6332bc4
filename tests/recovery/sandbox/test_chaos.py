"""What makes sandboxes is killed, or finds the disk full: no call hangs, none lies."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.linux.cgroups import find_tree
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import Outcome
from tests.conftest import Scale
from tests.contract.sandbox.calling import Caller
from tests.contract.sandbox.groups import groups, members
from tests.recovery.sandbox import full_disk, traffic

DEADLINE_SECONDS = 60
PROGRAM_ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture
async def kernel(tmp_path: Path) -> NamespaceBackend:
    return NamespaceBackend(Settings(home=tmp_path / "home"))


@pytest.fixture
async def call(tmp_path: Path, kernel: NamespaceBackend) -> AsyncIterator[Caller]:
    pool = PooledBackend(kernel, Settings(pool_ready_per_package=2))
    yield Caller(tmp_path, pool)
    await pool.close()


async def again_and_again(act: Callable[[], bool], rng: random.Random) -> int:
    """Act at random moments until cancelled. Returns how often it was done."""
    times = 0
    try:
        while True:
            await asyncio.sleep(rng.uniform(0, 0.2))
            times += act()
    except asyncio.CancelledError:
        return times


async def with_chaos(
    call: Caller, rng: random.Random, count: int, act: Callable[[], bool]
) -> dict[str, int]:
    """How the calls ended during which it was acted."""
    acting = asyncio.create_task(again_and_again(act, rng))
    try:
        found = await traffic.run(call, rng, count)
    finally:
        acting.cancel()
    assert await acting > 0
    assert found[Outcome.OK] > 0
    return found


async def test_the_zygote_is_killed(
    call: Caller, kernel: NamespaceBackend, rng: random.Random, scale: Scale
) -> None:
    def kill() -> bool:
        zygote = kernel.zygote_pid
        # Started by an ordinary user, it is the child of what set its namespaces up.
        parents = (os.getpid(), *traffic.children(os.getpid()))
        return zygote is not None and any(traffic.kill_child(zygote, one) for one in parents)

    found = await with_chaos(call, rng, scale(small=60, full=2_000), kill)
    assert found[Outcome.KILLED] + found[traffic.REFUSED] > 0


async def test_what_a_filler_builds_is_killed(
    call: Caller, kernel: NamespaceBackend, rng: random.Random, scale: Scale
) -> None:
    def kill() -> bool:
        """The youngest child of the zygote: half-built, ready, or called just now."""
        zygote = kernel.zygote_pid or 0
        below = traffic.children(zygote)
        return bool(below) and traffic.kill_child(below[-1], zygote)

    await with_chaos(call, rng, scale(small=60, full=2_000), kill)


async def test_nothing_outlives_its_host(tmp_path: Path, rng: random.Random, scale: Scale) -> None:
    for number in range(scale(small=2, full=25)):
        folder = tmp_path / str(number)
        folder.mkdir()
        host = subprocess.Popen(  # noqa: ASYNC220 - it prints at once, and is killed below
            [sys.executable, traffic.__file__, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env=PROGRAM_ENVIRONMENT,
        )
        assert host.stdout is not None
        zygote = int(await asyncio.to_thread(host.stdout.readline))
        await asyncio.sleep(rng.uniform(0, 0.3))
        below = {zygote, *traffic.children(zygote), *members(host.pid)}
        host.kill()
        host.wait()
        host.stdout.close()
        await until_gone(below, host.pid)
        tree = find_tree()  # As the next host does.
        assert groups(host.pid) == set()
        if tree is not None:
            tree.close()


async def until_gone(processes: set[int], host: int) -> None:
    """Until none of these is there, nor any other that is in a group of that host's."""
    ends = time.monotonic() + DEADLINE_SECONDS
    while members(host) or any(is_running(pid) for pid in processes):
        assert time.monotonic() < ends, "sandboxes outlived their host"
        await asyncio.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system that is small")
def test_a_full_disk_is_told(tmp_path: Path, scale: Scale) -> None:
    count = scale(small=5, full=40)
    mount = shlex.join(["mount", "-t", "tmpfs", "-o", "size=12m", "swarm-full", str(tmp_path)])
    program = shlex.join([sys.executable, full_disk.__file__, str(tmp_path), str(count)])
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f"{mount}; {program}"],
        capture_output=True,
        text=True,
        timeout=full_disk.CALL_SECONDS * (count + 3),
        check=False,
        env=PROGRAM_ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    first, *others, last = json.loads(done.stdout)
    assert (first, last) == ("done", "done")
    assert set(others) == {"refused"}
