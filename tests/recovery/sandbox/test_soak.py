"""Thousands of invocations that fail in every way: nothing is left of them, and memory is flat."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import Outcome
from tests.conftest import Scale
from tests.contract.sandbox.calling import MEBIBYTE, Caller, limits

AT_ONCE = 4
MOST_SANDBOXES = AT_ONCE + 8 + 2 * 2 + 1
"""Called, taken apart, ready for either request, being filled."""
ALLOWED_GROWTH_BYTES = 8 * MEBIBYTE

HANDLER = """
import os, subprocess, sys, time

def handler(inputs, context):
    what = inputs["what"]
    if what == "raise":
        raise ValueError("as asked")
    if what == "exit":
        os._exit(3)
    if what == "timeout":
        time.sleep(1000)
    if what == "oom":
        kept = []
        while True:
            kept.append(bytearray(4 << 20))
    if what == "flood":
        for _ in range(3000):
            print("x" * 100)
    if what == "forks":
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                time.sleep(1000)
    if what == "files":
        for number in range(200):
            with open(f"/tmp/{number}", "w") as file:
                file.write("x" * 1000)
    return {"what": what}
"""
EXPECTED = {
    "return": (Outcome.OK,),
    "raise": (Outcome.ERROR,),
    "exit": (Outcome.ERROR,),
    "timeout": (Outcome.TIMEOUT,),
    "oom": (Outcome.OOM,),
    "flood": (Outcome.OK,),
    "forks": (Outcome.OK,),
    "files": (Outcome.OK,),
}
WEIGHTS = (30, 10, 10, 2, 4, 10, 10, 10)


class Traces:
    """What this process and its descendants hold of the machine."""

    def __init__(self, zygote: int) -> None:
        self.processes = descendants(os.getpid())
        self.namespaces = namespaces(self.processes)
        self.mounts = Path("/proc/self/mountinfo").read_text()
        self.groups = set(Path("/sys/fs/cgroup").glob(f"**/swarm-{os.getpid()}-*/*/"))
        self.descriptors = opened("self")
        self.zygote_descriptors = opened(zygote, but="user:[")
        self.mappings = opened(zygote) - self.zygote_descriptors
        self.temporary = set(Path(tempfile.gettempdir()).iterdir())


async def test_nothing_is_left_and_memory_is_flat(
    tmp_path: Path, rng: random.Random, scale: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    settings = Settings(home=tmp_path / "home", pool_idle_seconds=0.2)
    kernel = NamespaceBackend(settings)
    pool = PooledBackend(kernel, settings)
    call = Caller(tmp_path, pool)
    try:
        await storm(call, rng, 60)  # What is set up once, is.
        before, memory = await quiet(pool, kernel), resident()
        await storm(call, rng, scale(small=300, full=20_000))
        after = await quiet(pool, kernel)
        assert after.processes == before.processes
        assert after.namespaces == before.namespaces
        assert after.mounts == before.mounts
        assert after.groups == before.groups
        assert after.temporary == set()
        # Fewer is fine: what was open before may have been closed since.
        assert after.descriptors <= before.descriptors
        assert after.zygote_descriptors <= before.zygote_descriptors
        # One for each sandbox that ever was there at a time, kept for the next one.
        assert after.mappings <= MOST_SANDBOXES
        assert resident() - memory < ALLOWED_GROWTH_BYTES
        assert sorted(path.name for path in (tmp_path / "home").rglob("*")) == ["run", "sandbox"]
    finally:
        await pool.close()


async def storm(call: Caller, rng: random.Random, count: int) -> None:
    """So many invocations, each failing in a way of its own or not at all."""
    request = call.request(
        HANDLER, limits=limits(memory_bytes=48 * MEBIBYTE, timeout_seconds=20, log_bytes=64 * 1024)
    )
    hanging = call.request(HANDLER, limits=limits(memory_bytes=48 * MEBIBYTE, timeout_seconds=0.3))
    places = asyncio.Semaphore(AT_ONCE)

    async def one(what: str) -> None:
        async with places:
            result = await call.run(hanging if what == "timeout" else request, {"what": what})
        call.services.lines.clear()
        assert result.outcome in EXPECTED[what], (what, result)
        if result.outcome is Outcome.OK:
            assert result.outputs == {"what": what}

    kinds = rng.choices(list(EXPECTED), WEIGHTS, k=count)
    await asyncio.gather(*(one(what) for what in kinds))
    assert Counter(kinds).total() == count


async def quiet(pool: PooledBackend, kernel: NamespaceBackend) -> Traces:
    """What is held once the pool has drained and what was destroyed is gone."""
    zygote = kernel.zygote_pid
    assert zygote is not None
    async with asyncio.timeout(60):
        # The pool's own drain is waited for; nobody is told when it is done.
        while not pool.is_empty:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    gc.collect()
    return Traces(zygote)


def descendants(pid: int) -> set[int]:
    found = [pid]
    for parent in found:
        text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        found += map(int, text.split())
    return set(found)


def namespaces(processes: set[int]) -> set[str]:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    return {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for pid in processes for kind in kinds}


def opened(pid: int | str, but: str = "/no/") -> int:
    """How many descriptors a process has, but for those of which the kernel's name begins so."""
    links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return sum(not str(link).startswith(but) for link in links)


def resident() -> int:
    """Bytes of this process's memory that no other shares."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")
