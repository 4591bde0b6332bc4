"""The copies of a machine: bounded, least recently used first, never one that is held."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarm.kernel.errors import NotFoundError
from swarm.kernel.settings import MIB
from swarm.store.shared.leases import Leases
from tests.bucket.machines import Machine, Machines
from tests.conftest import Scale

ROOT = Path(__file__).resolve().parents[3]
FETCH = [sys.executable, "-m", "tests.integration.sharing.fetch_process"]
MEMORY = [sys.executable, "-m", "tests.integration.sharing.memory_process"]
MOST_KIB = 64 * 1024
"""Memory that a file of any size may take, on its way up and down."""


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT
    )


def kill_when_half(command: list[str]) -> None:
    """Start a process that says ``half`` and waits, and kill it then."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
        process.communicate()


def copies(machine: Machine) -> set[str]:
    local = machine.artifacts.local
    return {
        f"sha256:{shard.name}{file.name}" for shard in local.shards() for file in shard.iterdir()
    }


def use(machine: Machine, reference: str, moment: int) -> None:
    os.utime(machine.artifacts.local.path(reference), (moment, moment))


async def test_what_was_used_least_recently_goes_and_comes_back(
    open_machine: Machines, tmp_path: Path
) -> None:
    machine = open_machine(tmp_path / "a", artifact_cache_mb=4)
    first, second, third = [await machine.artifacts.put_bytes(os.urandom(MIB)) for _ in range(3)]
    use(machine, first, 1000)
    use(machine, second, 3000)
    use(machine, third, 2000)
    last = [await machine.artifacts.put_bytes(os.urandom(MIB)) for _ in range(2)]
    # Five of a mebibyte are more than four: down to nine tenths of it, the oldest two go.
    assert copies(machine) == {second, *last}
    assert (await machine.artifacts.fetch(first)).stat().st_size == MIB


async def test_what_is_held_stays(open_machine: Machines, tmp_path: Path) -> None:
    machine, process = [open_machine(tmp_path / "a", artifact_cache_mb=1) for _ in range(2)]
    held, free = [await machine.artifacts.put_bytes(os.urandom(MIB // 3)) for _ in range(2)]
    for reference in (held, free):
        use(machine, reference, 1000)
    with machine.artifacts.held([held, "live:dir_1", held]):
        assert process.artifacts.evict(0) == 1
        assert copies(machine) == {held}
    assert process.artifacts.evict(0) == 1
    assert copies(machine) == set()
    assert not any((tmp_path / "a" / "held").iterdir())


async def test_a_cache_that_is_too_small_for_its_work_serves_it_still(
    open_machine: Machines, tmp_path: Path
) -> None:
    """Nobody finds a copy missing, or half of one, however fast they go."""
    source = open_machine(tmp_path / "a")
    contents = [os.urandom(MIB // 2) for _ in range(8)]
    references = [await source.artifacts.put_bytes(data) for data in contents]
    processes = [open_machine(tmp_path / "b", artifact_cache_mb=1) for _ in range(2)]

    async def work(number: int) -> None:
        artifacts = processes[number % 2].artifacts
        for turn in range(12):
            index = (number * 5 + turn * 3) % len(references)
            with artifacts.held([references[index]]):
                path = await artifacts.fetch(references[index])
                data = await asyncio.to_thread(path.read_bytes)
            assert hashlib.sha256(data).digest() == hashlib.sha256(contents[index]).digest()

    await asyncio.gather(*(work(number) for number in range(6)))
    processes[0].artifacts.evict(MIB)
    assert len(copies(processes[0])) <= 2


def test_leases_leave_no_files_and_are_never_two(tmp_path: Path) -> None:
    leases = [Leases(tmp_path / "leases") for _ in range(4)]
    holders = 0
    worst = 0

    def take(number: int) -> None:
        nonlocal holders, worst
        for _ in range(200):
            with leases[number].alone("one"):
                holders += 1
                worst = max(worst, holders)
                holders -= 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(take, range(4)))
    assert worst == 1
    with (
        leases[0].shared("one"),
        leases[1].shared("one"),
        leases[2].alone("one", wait=False) as is_alone,
    ):
        assert not is_alone
    with leases[2].alone("one", wait=False) as is_alone:
        assert is_alone
    assert list((tmp_path / "leases").iterdir()) == []


def fetching(machines: Machines, root: Path, *references: str, pause: bool = False) -> list[str]:
    """The command of a process of another machine that fetches these."""
    given = json.dumps({**machines.given(), "pause": pause})
    return [*FETCH, given, str(root), *references]


async def test_a_fetch_that_is_killed_leaves_nothing_and_the_next_goes_on(
    open_machine: Machines, tmp_path: Path
) -> None:
    data = os.urandom(8 * MIB)
    reference = await open_machine(tmp_path / "a").artifacts.put_bytes(data)
    kill_when_half(fetching(open_machine, tmp_path / "b", reference, pause=True))
    machine = open_machine(tmp_path / "b")
    assert copies(machine) == set()
    assert [path for path in (tmp_path / "b" / "sha256").iterdir() if path.is_file()] == []
    assert (await machine.artifacts.fetch(reference)).read_bytes() == data


def private_mounts() -> list[str]:
    for command in (["unshare", "-m"], ["unshare", "-r", "-m"]):
        if run([*command, "true"]).returncode == 0:
            return command
    pytest.skip("this machine lets nobody mount: unshare is refused")


async def test_a_full_disk_is_made_room_on_or_told(open_machine: Machines, tmp_path: Path) -> None:
    """On a file system of 8 MiB: copies that nobody holds go, and what never fits is told."""
    source = open_machine(tmp_path / "a")
    sizes = (3 * MIB, 3 * MIB, 3 * MIB, 9 * MIB)
    references = [await source.artifacts.put_bytes(os.urandom(size)) for size in sizes]
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=8m swarm-test {small}"
    command = shlex.join(fetching(open_machine, small / "artifacts", *references))
    program = f"{mount} && exec {command}"
    done = run([*private_mounts(), "sh", "-c", program])
    lines = done.stdout.splitlines()
    assert lines[:3] == [f"got {size}" for size in sizes[:3]], done.stderr
    assert lines[3].startswith("UnavailableError: ") and "space" in lines[3]


@pytest.mark.parametrize("bucket", [False, True], ids=["database", "bucket"])
async def test_a_large_file_takes_little_memory(
    open_machine: Machines,
    tmp_path: Path,
    bucket: bool,
    scale: Scale,
    record_property: Callable[[str, object], None],
) -> None:
    size = scale(small=96, full=512)
    large = tmp_path / "large"
    with large.open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(MIB))
    given = {**open_machine.given(bucket=bucket), "artifact_database_mb": 1024}
    done = run([*MEMORY, json.dumps(given), str(tmp_path), str(large)])
    assert done.returncode == 0, done.stderr
    before, put, got = map(int, done.stdout.split())
    record_property("measured", f"{size} MiB: up {put - before:,}, down {got - put:,} KiB more")
    assert got - before < MOST_KIB


async def test_what_no_machine_has_is_not_found(open_machine: Machines, tmp_path: Path) -> None:
    machine = open_machine(tmp_path / "a")
    for reference in ("sha256:" + "0" * 64, "sha256:../../etc/passwd", "live:1", ""):
        with pytest.raises(NotFoundError):
            await machine.artifacts.fetch(reference)
    assert copies(machine) == set()
