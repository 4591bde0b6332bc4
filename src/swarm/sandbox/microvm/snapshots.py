"""Snapshots of machines that wait for an invocation: on disk, and held ready in memory.

On disk a snapshot is a folder: the package's image, the machine's memory (a sparse file) and its
state. It appears whole or not at all, is built once however many ask for it, and the one not used
for longest goes when they outgrow their limit. Held ready, the memory is a sealed memory file:
machines map it privately and take a copy of a page only when they write to it, so that a restore
reads nothing and no machine can change what another one gets.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm.kernel.errors import SandboxUnavailable

MEBIBYTE: Final = 1024 * 1024
MEMORY: Final = "memory"
STATE: Final = "state"
AGENT_DISK: Final = "agent.squashfs"
PACKAGE_DISK: Final = "package.squashfs"
_PAGE: Final = 4096
_ZEROS: Final = bytes(_PAGE)
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_NEW: Final = ".new-"
_LOCKS: Final = "locks"
_RETRY_SECONDS: Final = 0.05

Build = Callable[[Path], Awaitable[None]]
"""Writes a snapshot's files into the folder given."""


@dataclass(slots=True)
class Template:
    """A snapshot held ready."""

    folder: Path
    memory: int
    """Descriptor of the sealed memory file."""
    state: int
    agent: int
    package: int
    """-1 for a machine that has no package yet."""
    memory_bytes: int
    resident_bytes: int
    users: int = 0
    is_retired: bool = False

    def close_if_unused(self) -> None:
        if self.is_retired and self.users == 0:
            for descriptor in (self.memory, self.state, self.agent, self.package):
                if descriptor >= 0:
                    os.close(descriptor)
            self.users = -1


class Snapshots:
    """The snapshots in one folder.

    Args:
        folder: shared by all processes of the home.
        disk_bytes: how much of the disk they may take.
        resident_bytes: how much memory this process may hold ready, the one used last aside; with
            0, none is held.
        lock_seconds: how long to wait for another process that builds the same.
    """

    def __init__(
        self, folder: Path, disk_bytes: int, resident_bytes: int, lock_seconds: float = 600.0
    ) -> None:
        self._folder = folder
        self._lock_seconds = lock_seconds
        self._disk_bytes = disk_bytes
        self._resident_bytes = resident_bytes
        self._templates: OrderedDict[str, Template] = OrderedDict()
        self._building: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def use(self, key: str, build: Build) -> AsyncIterator[Template]:
        """The template of ``key``, built with ``build`` where there is none yet.

        Raises:
            SandboxUnavailable: it cannot be built, or the disk is full.
        """
        async with self._building.setdefault(key, asyncio.Lock()):
            template = self._templates.get(key)
            if template is None:
                template = await self._obtain(key, build)
                self._templates[key] = template
            self._templates.move_to_end(key)
            template.users += 1
        try:
            self._retire_surplus()
            yield template
        finally:
            template.users -= 1
            template.close_if_unused()

    def close(self) -> None:
        """Give up what is held in memory; what is on disk stays."""
        for template in self._templates.values():
            template.is_retired = True
            template.close_if_unused()
        self._templates.clear()

    def _retire_surplus(self) -> None:
        total = sum(template.resident_bytes for template in self._templates.values())
        least = 1 if self._resident_bytes else 0
        while total > self._resident_bytes and len(self._templates) > least:
            key, template = self._templates.popitem(last=False)
            self._building.pop(key, None)
            total -= template.resident_bytes
            template.is_retired = True
            template.close_if_unused()

    async def _obtain(self, key: str, build: Build) -> Template:
        lock = await self._lock(key)
        try:
            target = self._folder / key
            if not (target / STATE).exists():
                await self._build(key, target, build)
            os.utime(target)
            return await asyncio.to_thread(load, target)
        except OSError as error:
            raise SandboxUnavailable(
                f"a snapshot cannot be kept: {error.strerror}",
                where=str(self._folder),
                remedy="make room on the disk, or lower SWARM_MICROVM_SNAPSHOTS_MB",
            ) from None
        finally:
            os.close(lock)

    async def _build(self, key: str, target: Path, build: Build) -> None:
        new = self._folder / f"{_NEW}{key}"
        # Whoever left one behind is dead: the lock is ours.
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            await build(new)
            shutil.rmtree(target, ignore_errors=True)
            new.rename(target)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        await asyncio.to_thread(self.evict, key)

    async def _lock(self, key: str) -> int:
        """Wait for the right to build ``key``; 256 locks serve all keys.

        Raises:
            SandboxUnavailable: another process has been building for too long.
        """
        locks = self._folder / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(locks / key[:2], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            async with asyncio.timeout(self._lock_seconds):
                # Not in a thread: those that wait could keep one from who holds the lock.
                while not _is_locked(descriptor):  # noqa: ASYNC110  nobody tells
                    await asyncio.sleep(_RETRY_SECONDS)
        except TimeoutError:
            os.close(descriptor)
            raise SandboxUnavailable(
                f"another process has built a snapshot for {self._lock_seconds:g} seconds",
                where=str(locks / key[:2]),
                remedy="end that process, or raise SWARM_MICROVM_BOOT_SECONDS",
            ) from None
        except asyncio.CancelledError:
            os.close(descriptor)
            raise
        return descriptor

    def evict(self, kept: str) -> None:
        """Remove what was not used for longest until the rest fits; never ``kept``."""
        found = []
        for folder in self._folder.iterdir():
            if folder.name in (kept, _LOCKS) or folder.name.startswith(_NEW):
                continue
            found.append((folder.stat().st_mtime, size_on_disk(folder), folder))
        total = size_on_disk(self._folder / kept) + sum(size for _, size, _ in found)
        for _, size, folder in sorted(found):
            if total <= self._disk_bytes:
                return
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _is_locked(descriptor: int) -> bool:
    """Whether the lock was free, and is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def size_on_disk(folder: Path) -> int:
    """Bytes that a folder's files take; 0 when it is gone."""
    try:
        return sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    except OSError:
        return 0


def memory_file(size: int) -> int:
    """A new memory file of ``size`` bytes, all zeros; its descriptor."""
    descriptor = os.memfd_create("swarm-machine", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    return descriptor


def empty_disk(size: int) -> int:
    """A file of ``size`` zeros that nobody can write; its descriptor."""
    writable = memory_file(size)
    fcntl.fcntl(writable, fcntl.F_ADD_SEALS, _SEALS)
    try:
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)


def save_memory(memory: int, path: Path) -> None:
    """Write a memory file to disk, without its zero pages."""
    size = os.fstat(memory).st_size
    with path.open("xb") as file:
        file.truncate(size)
        for start in _data_of(memory, size):
            data = os.pread(memory, MEBIBYTE, start)
            if data.count(0) == len(data):
                continue
            for offset in range(0, len(data), _PAGE):
                page = data[offset : offset + _PAGE]
                if page != _ZEROS:
                    os.pwrite(file.fileno(), page, start + offset)


def copy_memory(memory: int) -> int:
    """A memory file with the same content; its descriptor."""
    size = os.fstat(memory).st_size
    made = memory_file(size)
    _copy_data(memory, made, size)
    return made


def load(folder: Path) -> Template:
    """Read a snapshot from disk and seal its memory."""
    with (folder / MEMORY).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        memory = memory_file(size)
        loaded = _copy_data(file.fileno(), memory, size)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    state, agent = (_open(folder / name) for name in (STATE, AGENT_DISK))
    package = folder / PACKAGE_DISK
    package_file = _open(package) if package.exists() else -1
    return Template(folder, memory, state, agent, package_file, size, loaded)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _copy_data(source: int, target: int, size: int) -> int:
    """Copy all but the holes; returns how many bytes that was."""
    position = copied = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError:  # ENXIO: no more data.
            break
        position = os.lseek(source, start, os.SEEK_HOLE)
        for offset in range(start, position, MEBIBYTE):
            data = os.pread(source, min(MEBIBYTE, position - offset), offset)
            copied += os.pwrite(target, data, offset)
    return copied


def _data_of(file: int, size: int) -> Iterator[int]:
    """The offsets of the mebibytes of a file that are no holes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
        except OSError:  # ENXIO: no more data.
            return
        start -= start % MEBIBYTE
        yield start
        position = start + MEBIBYTE
