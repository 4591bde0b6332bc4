"""Bounds a sandbox's memory where no cgroup can: adds up its processes a few times a second.

What it misses: a burst between two looks (the limits on each process still hold), and memory that
the kernel holds for open sockets and pipes. (Nameless files in memory, which need not be mapped
either, cannot be made where it watches.) A cgroup has neither gap.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from swarm.sandbox.linux.zygote_client import SpawnedProcess

INTERVAL_SECONDS: Final = 0.2
IDLE_INTERVAL_SECONDS: Final = 1.0
"""For one that waits for its call. Its package has been imported, so it may use memory too."""
_PROCESS_LIMIT: Final = 4096


class Watchdog:
    """Watches one sandbox, from a thread: some processes take the kernel long to add up.

    Args:
        process: the sandbox, started.
        folders: open folders of its tmpfs file systems, whose contents are memory too.
        limit: bytes.
    """

    def __init__(self, process: SpawnedProcess, folders: Sequence[int], limit: int) -> None:
        self._process = process
        self._folders = tuple(folders)
        self._limit = limit
        self._task: asyncio.Task[None] | None = None
        self.used_bytes = 0
        """When it was looked at last."""
        self.peak_bytes = 0

    def start(self, strike: Callable[[], None], interval: float = INTERVAL_SECONDS) -> None:
        """Watch until the limit is passed; ``strike`` is called then.

        Args:
            strike: called once.
            interval: seconds between two looks; the first is at once.
        """
        self.stop()
        self._task = asyncio.get_running_loop().create_task(self._watch(strike, interval))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self, strike: Callable[[], None], interval: float) -> None:
        while True:
            self.used_bytes = await asyncio.to_thread(self._look)
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
            if self.used_bytes > self._limit:
                strike()
                return
            await asyncio.sleep(interval)

    def _look(self) -> int:
        used = sum(map(_used_of_folder, self._folders))
        return used + sum(map(memory_of, processes_of(self._process)))


def processes_of(process: SpawnedProcess) -> list[int]:
    """The host's pids of a sandbox's handler and all below it; orphans go to its init."""
    found = [process.handler, *_children(process.init)]
    for parent in found:
        if len(found) > _PROCESS_LIMIT:
            break
        found += _children(parent)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - as below
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        return found  # It has ended meanwhile.
    return found


def memory_of(pid: int) -> int:
    """Bytes of a process: its share of shared pages where the kernel tells, else private ones."""
    try:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        fields = _read(f"/proc/{pid}/statm").split()
    except OSError:
        return 0  # It has ended meanwhile.
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds_of(process: SpawnedProcess) -> float:
    """Processor time of a sandbox's living processes and of those that they have reaped."""
    seconds = 0.0
    for pid in processes_of(process):
        try:
            seconds += time.clock_gettime(_clock_of(pid))
            fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        except OSError:
            continue  # It has ended meanwhile.
        seconds += sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _clock_of(pid: int) -> int:
    """The clock of a process's own processor time: ``MAKE_PROCESS_CPUCLOCK`` of the GNU C library.

    What ``/proc`` tells of it is rounded to hundredths of a second.
    """
    return ~pid << 3 | 2


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - on the way of every call
        return file.read()


def _used_of_folder(descriptor: int) -> int:
    try:
        status = os.fstatvfs(descriptor)
    except OSError:
        return 0  # It was closed meanwhile.
    return (status.f_blocks - status.f_bfree) * status.f_frsize
