"""Snapshots on disk and in memory, with files instead of machines."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
from pathlib import Path

import pytest

from swarm.kernel.errors import SandboxUnavailable
from swarm.sandbox.microvm.snapshots import (
    MEBIBYTE,
    Snapshots,
    load,
    memory_file,
    save_memory,
    size_on_disk,
)

SIZE = 8 * MEBIBYTE


def fill(folder: Path, size: int = SIZE) -> None:
    memory = memory_file(size)
    os.pwrite(memory, b"page", MEBIBYTE + 8192)
    save_memory(memory, folder / "memory")
    os.close(memory)
    (folder / "state").write_bytes(b"state")
    (folder / "agent.squashfs").write_bytes(b"agent")
    (folder / "package.squashfs").write_bytes(b"package")


def made(folder: Path, disk: int = 1 << 30, resident: int = 1 << 30) -> Snapshots:
    return Snapshots(folder, disk, resident)


async def test_zero_pages_take_no_room_and_come_back_as_zeros(tmp_path: Path) -> None:
    fill(tmp_path)
    assert (tmp_path / "memory").stat().st_size == SIZE
    assert size_on_disk(tmp_path) < MEBIBYTE
    template = load(tmp_path)
    expected = bytearray(SIZE)
    expected[MEBIBYTE + 8192 : MEBIBYTE + 8196] = b"page"
    assert os.pread(template.memory, SIZE, 0) == expected


async def test_memory_held_ready_cannot_be_changed(tmp_path: Path) -> None:
    fill(tmp_path)
    template = load(tmp_path)
    with pytest.raises(PermissionError):
        os.pwrite(template.memory, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(template.memory, 0)
    with pytest.raises(PermissionError):
        mmap.mmap(template.memory, 4096, flags=mmap.MAP_SHARED)
    with mmap.mmap(template.memory, 4096, flags=mmap.MAP_PRIVATE) as private:
        private[0] = 1
    assert os.pread(template.memory, 1, 0) == b"\0"


async def test_many_who_ask_get_one_that_is_built_once(tmp_path: Path) -> None:
    built = []

    async def build(folder: Path) -> None:
        built.append(folder)
        await asyncio.sleep(0)
        fill(folder)

    stores = [made(tmp_path), made(tmp_path)]

    async def ask(store: Snapshots) -> None:
        async with store.use("ab" * 32, build) as template:
            assert os.pread(template.state, 5, 0) == b"state"

    await asyncio.gather(*(ask(store) for store in stores * 3))
    assert len(built) == 1
    for store in stores:
        store.close()


async def test_one_that_fails_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    async def fail(folder: Path) -> None:
        (folder / "memory").write_bytes(b"half")
        raise SandboxUnavailable("no")

    async def build(folder: Path) -> None:
        fill(folder)

    store = made(tmp_path)
    with pytest.raises(SandboxUnavailable):
        async with store.use("cd" * 32, fail):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
    async with store.use("cd" * 32, build):
        pass
    store.close()


async def test_the_one_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    async def build(folder: Path) -> None:
        fill(folder)
        (folder / "package.squashfs").write_bytes(bytes(MEBIBYTE))

    keys = [digit * 64 for digit in "abc"]
    store = made(tmp_path, disk=int(2.5 * MEBIBYTE))
    for age, key in enumerate(keys[:2]):
        async with store.use(key, build):
            pass
        os.utime(tmp_path / key, (age, age))
    async with store.use(keys[2], build):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [*keys[1:], "locks"]
    store.close()


async def test_what_is_held_ready_stays_while_it_is_used(tmp_path: Path) -> None:
    async def build(folder: Path) -> None:
        fill(folder)

    store = made(tmp_path, resident=1)
    async with store.use("a" * 64, build) as first, store.use("b" * 64, build):
        fcntl.fcntl(first.memory, fcntl.F_GETFD)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fcntl.fcntl(first.memory, fcntl.F_GETFD)
    store.close()


async def test_without_a_share_of_memory_none_is_held_when_unused(tmp_path: Path) -> None:
    async def build(folder: Path) -> None:
        fill(folder)

    store = made(tmp_path, resident=0)
    async with store.use("ab" * 32, build) as template:
        assert template.users == 1
    assert template.is_retired
    assert template.users == -1


async def test_whoever_builds_for_too_long_is_not_waited_for(tmp_path: Path) -> None:
    async def build(folder: Path) -> None:
        raise AssertionError("it is not ours to build")

    (tmp_path / "locks").mkdir()
    with (tmp_path / "locks" / "ab").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        store = Snapshots(tmp_path, 1 << 30, 1 << 30, lock_seconds=0.2)
        with pytest.raises(SandboxUnavailable, match="another process has built"):
            async with store.use("ab" * 32, build):
                pass
