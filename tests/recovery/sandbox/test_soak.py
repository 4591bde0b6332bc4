"""Thousands of invocations that fail in every way: nothing is left of them, and memory is flat."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import Outcome
from tests.conftest import Scale
from tests.contract.sandbox.calling import MEBIBYTE, Caller, limits
from tests.contract.sandbox.groups import below, members

pytestmark = pytest.mark.alone
AT_ONCE = 4
MOST_SANDBOXES = AT_ONCE + 8 + 2 * 2 + 2
"""Called, taken apart, ready for either request, being built ahead."""
ALLOWED_GROWTH_BYTES = 4 * MEBIBYTE
WARMING = 200
"""Invocations before the first look: what is set up once, is."""

HANDLER = """
import os, signal, time

def handler(inputs, context):
    what = inputs["what"]
    if what == "raise":
        raise ValueError("as asked")
    if what == "exit":
        os._exit(3)
    if what == "suicide":
        os.kill(os.getpid(), signal.SIGKILL)
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


@dataclass(frozen=True)
class Way:
    """How an invocation goes, how often, and how it may end."""

    weight: int
    outcome: Outcome


WAYS = {
    "return": Way(30, Outcome.OK),
    "raise": Way(10, Outcome.ERROR),
    "exit": Way(10, Outcome.ERROR),
    "suicide": Way(10, Outcome.KILLED),
    "timeout": Way(2, Outcome.TIMEOUT),
    "oom": Way(4, Outcome.OOM),
    "flood": Way(10, Outcome.OK),
    "forks": Way(10, Outcome.OK),
    "files": Way(10, Outcome.OK),
}


class Traces:
    """What a host and all that came from it hold of the machine."""

    def __init__(self, zygote: int, home: Path) -> None:
        # By their group, not by their parent: an orphan has lost that.
        self.processes = members(os.getpid()) | descendants(os.getpid())
        self.namespaces = namespaces(self.processes)
        self.mounts = {name: mounts(name) for name in ("self", str(zygote))}
        self.groups = below(os.getpid())
        self.temporary = sorted(path.name for path in Path(tempfile.gettempdir()).iterdir())
        self.home = sorted(path.name for path in home.rglob("*"))
        self.descriptors = opened("self")
        self.zygote_descriptors = opened(str(zygote))

    def must_be_no_more_than(self, before: Traces) -> None:
        assert self.processes == before.processes
        assert self.namespaces == before.namespaces
        assert self.mounts == before.mounts
        assert self.groups == before.groups
        assert self.temporary == before.temporary == []
        assert self.home == ["run", "sandbox"]
        # Fewer is fine: what was open before may have been closed since.
        assert len(self.descriptors) <= len(before.descriptors), self.descriptors
        # One user namespace for each sandbox that ever was there at a time serves those after it.
        maps, rest = partition(self.zygote_descriptors)
        assert len(maps) <= MOST_SANDBOXES
        assert len(rest) <= len(partition(before.zygote_descriptors)[1]), rest


async def test_nothing_is_left_and_memory_is_flat(
    tmp_path: Path, rng: random.Random, scale: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    settings = Settings(home=tmp_path / "home", pool_idle_seconds=0.2)
    kernel = NamespaceBackend(settings)
    pool = PooledBackend(kernel, settings)
    call = Caller(tmp_path, pool)
    count = scale(small=300, full=20_000)
    try:
        await storm(call, rng, WARMING)
        zygote = await quiet(pool, kernel)
        before, memory = Traces(zygote, settings.home), private_bytes("self", zygote)
        await storm(call, rng, count)
        assert await quiet(pool, kernel) == zygote, "the zygote died"
        Traces(zygote, settings.home).must_be_no_more_than(before)
        for whose, start, end in zip(
            ("host", "zygote"), memory, private_bytes("self", zygote), strict=True
        ):
            sys.stdout.write(f"{whose}: {start} bytes of its own, {end} after {count} more calls\n")
            assert end - start < ALLOWED_GROWTH_BYTES
    finally:
        await pool.close()


async def storm(call: Caller, rng: random.Random, count: int) -> None:
    """So many invocations, each going one of the ways."""
    own = limits(memory_bytes=48 * MEBIBYTE, timeout_seconds=60, log_bytes=64 * 1024)
    request = call.request(HANDLER, limits=own)
    hanging = call.request(HANDLER, limits=limits(memory_bytes=own.memory_bytes, timeout_seconds=1))
    ways = iter(rng.choices(list(WAYS), [way.weight for way in WAYS.values()], k=count))

    async def go_on(ways: Iterator[str]) -> None:
        for what in ways:
            result = await call.run(hanging if what == "timeout" else request, {"what": what})
            call.services.lines.clear()
            assert result.outcome is WAYS[what].outcome, (what, result)
            if result.outcome is Outcome.OK:
                assert result.outputs == {"what": what}

    await asyncio.gather(*(go_on(ways) for _ in range(AT_ONCE)))


async def quiet(pool: PooledBackend, kernel: NamespaceBackend) -> int:
    """Wait until the pool has drained and what was destroyed is gone. Returns the zygote's pid."""
    async with asyncio.timeout(60):
        # The pool's own drain is waited for; nobody is told when it is done.
        while not pool.is_empty:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    gc.collect()
    assert kernel.zygote_pid is not None
    return kernel.zygote_pid


def descendants(pid: int) -> set[int]:
    found = [pid]
    for parent in found:
        text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        found += map(int, text.split())
    return set(found)


def namespaces(processes: set[int]) -> set[str]:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    return {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for pid in processes for kind in kinds}


def mounts(process: str) -> list[str]:
    """The mounts that a process sees, but for those that other programs come and go with."""
    lines = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    return sorted(line.split()[4] for line in lines if "swarm" in line)


def opened(process: str) -> list[str]:
    """What the kernel calls what a process has open."""
    links = Path(f"/proc/{process}/fd").iterdir()
    return sorted(str(link.readlink()) for link in links if link.is_symlink())


def partition(descriptors: list[str]) -> tuple[list[str], list[str]]:
    """User namespaces, and the rest."""
    maps = [each for each in descriptors if each.startswith("user:[")]
    return maps, [each for each in descriptors if not each.startswith("user:[")]


def private_bytes(*processes: object) -> list[int]:
    """Memory of each process that no other shares."""
    found = []
    for process in processes:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        found.append(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")))
    return [kib * 1024 for kib in found]
