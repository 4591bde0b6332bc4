"""Control groups: one for each sandbox, on version 1 or 2 of the interface, where it may be made.

A group bounds memory and processes of the whole tree of a sandbox, knows its peak, and tells
whether the kernel had to kill for want of memory. Groups are made below the group that the host
itself is in, so that limits set on the host hold for its sandboxes too.
Sources: ``Documentation/admin-guide/cgroup-v1`` and ``cgroup-v2.rst`` of the kernel.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from swarm.sandbox.ports import Limits

_PREFIX: Final = "swarm-"
_V1_CONTROLLERS: Final = ("memory", "pids", "cpu")
_READ_BYTES: Final = 4096
"""More than any of the files read here has."""
_REQUIRED: Final = {"memory", "pids"}
_CPU_SHARES: Final = 1024 * (os.cpu_count() or 1)
"""Version 1, all sandboxes together: on each processor as much as one thread of the host's, however
many they are. In version 2 the default already shares evenly between them and the host's group."""


class Cgroup(Protocol):
    """The group of one sandbox."""

    @property
    def process_files(self) -> Sequence[Path]:
        """Files into which a process writes 0 to join."""
        ...

    def used_memory(self) -> int:
        """Bytes in use now."""
        ...

    def peak_memory(self) -> int:
        """Most bytes in use at once, 0 where the kernel does not say."""
        ...

    def oom_kills(self) -> int:
        """How many processes the kernel killed for want of memory."""
        ...

    @property
    def oom_descriptor(self) -> int:
        """Becomes readable when memory runs out; -1 where the kernel kills the group by itself."""
        ...

    def remove(self) -> None:
        """Remove the group; all its processes are gone. Safe to call twice."""
        ...


class CgroupTree(Protocol):
    """Where groups can be made."""

    @property
    def layer(self) -> str:
        """``cgroup-v1`` or ``cgroup-v2``."""
        ...

    @property
    def zygote_files(self) -> Sequence[Path]:
        """Files by which the zygote joins what all its sandboxes share."""
        ...

    def create(self, name: str, limits: Limits) -> Cgroup: ...

    def close(self) -> None:
        """Remove what this host made."""
        ...


@dataclass(frozen=True, slots=True)
class MountedHierarchy:
    """A cgroup mount and the folder in it that this process is in."""

    version: int
    controllers: frozenset[str]
    """Version 1 only."""
    folder: Path


def find_hierarchies(mounts: str, membership: str) -> list[MountedHierarchy]:
    """The hierarchies of ``/proc/self/mountinfo`` and ``/proc/self/cgroup``, given as text."""
    memberships = [line.split(":", 2) for line in membership.splitlines()]
    found = []
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        root, mountpoint = left.split()[3:5]
        kind, _, options = right.split()[:3]
        names = frozenset(options.split(","))
        for number, controllers, path in memberships:
            is_v2 = kind == "cgroup2" and number == "0" and not controllers
            is_v1 = kind == "cgroup" and controllers and set(controllers.split(",")) <= names
            inside = os.path.relpath(path, root)
            if (is_v1 or is_v2) and not inside.startswith(".."):
                folder = Path(os.path.normpath(Path(mountpoint) / inside))
                found.append(MountedHierarchy(2 if is_v2 else 1, names, folder))
    return found


def find_tree() -> CgroupTree | None:
    """A tree in which this process may make groups, or None."""
    hierarchies = find_hierarchies(
        Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
    )
    name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    return _find_v2(hierarchies, name) or _find_v1(hierarchies, name)


def _find_v1(hierarchies: Sequence[MountedHierarchy], name: str) -> CgroupTree | None:
    folders: dict[str, Path] = {}
    for controller in _V1_CONTROLLERS:
        for hierarchy in hierarchies:
            if hierarchy.version == 1 and controller in hierarchy.controllers:
                _sweep(hierarchy.folder)
                folders[controller] = hierarchy.folder / name
    if not folders.keys() >= _REQUIRED or not _make_all(list(folders.values())):
        return None
    return _TreeV1(folders["memory"], folders["pids"], folders.get("cpu"))


def _find_v2(hierarchies: Sequence[MountedHierarchy], name: str) -> CgroupTree | None:
    """In the host's own group or beside it: a group with processes cannot pass controllers on."""
    for hierarchy in hierarchies:
        if hierarchy.version != 2:
            continue
        for parent in (hierarchy.folder, hierarchy.folder.parent):
            passed_on = set(_read(parent / "cgroup.subtree_control").split())
            if not passed_on >= _REQUIRED:
                continue
            _sweep(parent)
            folder = parent / name
            wanted = " ".join(f"+{each}" for each in sorted(passed_on & {*_REQUIRED, "cpu"}))
            if _make_all([folder]) and _write(folder / "cgroup.subtree_control", wanted):
                return _TreeV2(folder)
    return None


class _TreeV1:
    """Processor time is shared out among the hosts' sandboxes as a whole: a group for each would
    cost another move on the way of every invocation."""

    layer = "cgroup-v1"

    def __init__(self, memory: Path, pids: Path, cpu: Path | None) -> None:
        self._memory = memory
        self._pids = pids
        self._cpu = cpu
        if cpu is not None:
            _write(cpu / "cpu.shares", str(_CPU_SHARES))

    @property
    def zygote_files(self) -> Sequence[Path]:
        return () if self._cpu is None else (self._cpu / "cgroup.procs",)

    def create(self, name: str, limits: Limits) -> Cgroup:
        memory, pids = self._memory / name, self._pids / name
        memory.mkdir(parents=True)
        pids.mkdir(parents=True)
        group = _GroupV1(memory, pids)
        _set(memory / "memory.limit_in_bytes", str(limits.memory_bytes))
        # Absent where swap is not accounted; then there is none to bound here.
        _write(memory / "memory.memsw.limit_in_bytes", str(limits.memory_bytes))
        _set(pids / "pids.max", str(limits.processes))
        return group

    def close(self) -> None:
        for folder in (self._memory, self._pids, self._cpu):
            if folder is not None:
                _remove(folder)


class _GroupV1:
    """The kernel kills one process of it at a time, so the host must be told and kill the rest."""

    def __init__(self, memory: Path, pids: Path) -> None:
        self._memory = memory
        self._pids = pids
        self.oom_descriptor = _watch_oom(memory)

    @property
    def process_files(self) -> Sequence[Path]:
        # Not `cgroup.procs`: to move a whole process, the kernel stops all forks and exits on the
        # machine, and waits milliseconds for that. Who joins here has one thread.
        return (self._memory / "tasks", self._pids / "tasks")

    def used_memory(self) -> int:
        return _number(_read(self._memory / "memory.usage_in_bytes"))

    def peak_memory(self) -> int:
        return _number(_read(self._memory / "memory.max_usage_in_bytes"))

    def oom_kills(self) -> int:
        return _entry(_read(self._memory / "memory.oom_control"), "oom_kill")

    def remove(self) -> None:
        if self.oom_descriptor >= 0:
            os.close(self.oom_descriptor)
            self.oom_descriptor = -1
        _remove(self._memory)
        _remove(self._pids)


class _TreeV2:
    layer = "cgroup-v2"
    zygote_files: Sequence[Path] = ()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str, limits: Limits) -> Cgroup:
        folder = self._folder / name
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(str(limits.memory_bytes))
        _write(folder / "memory.swap.max", "0")
        _write(folder / "memory.oom.group", "1")
        (folder / "pids.max").write_text(str(limits.processes))
        return _GroupV2(folder)

    def close(self) -> None:
        _remove(self._folder)


class _GroupV2:
    oom_descriptor = -1

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def process_files(self) -> Sequence[Path]:
        return (self._folder / "cgroup.procs",)

    def used_memory(self) -> int:
        return _number(_read(self._folder / "memory.current"))

    def peak_memory(self) -> int:
        return _number(_read(self._folder / "memory.peak"))

    def oom_kills(self) -> int:
        return _entry(_read(self._folder / "memory.events"), "oom_kill")

    def remove(self) -> None:
        _remove(self._folder)


def _watch_oom(memory: Path) -> int:
    """An eventfd that counts when the group runs out of memory (cgroup-v1/memory.rst, 10)."""
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    control = _open(memory / "memory.oom_control", os.O_RDONLY)
    try:
        _set(memory / "cgroup.event_control", f"{event} {control}")
    finally:
        os.close(control)
    return event


def _sweep(parent: Path) -> None:
    """Remove the groups of hosts that died; those of living ones are left alone."""
    for folder in parent.glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            for group in folder.iterdir():
                if group.is_dir():
                    _remove(group)
            _remove(folder)


def _make_all(folders: Sequence[Path]) -> bool:
    made: list[Path] = []
    for folder in folders:
        try:
            folder.mkdir()
        except OSError:
            for other in made:
                _remove(other)
            return False
        made.append(folder)
    return True


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _write(path: Path, text: str) -> bool:
    try:
        _set(path, text)
    except OSError:
        return False
    return True


def _set(path: Path, text: str) -> None:
    descriptor = _open(path, os.O_WRONLY | os.O_CREAT)  # The kernel refuses to make any.
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    try:
        descriptor = _open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _READ_BYTES).decode()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    """Without a file object: every call comes this way several times."""
    return os.open(path, flags | os.O_CLOEXEC)


def _number(text: str) -> int:
    return int(text) if text.strip().isdecimal() else 0


def _entry(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value)
    return 0
