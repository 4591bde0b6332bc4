"""Host leases: lock files that show which hosts are alive.

A host holds an exclusive ``flock`` on ``<id>.lock``. The kernel frees it when the last process that
inherited the descriptor is gone, however it went; there are no heartbeats and no process ids to
trust. Whoever wants to know takes a *shared* lock: it is granted exactly when the host is gone, and
probes do not disturb each other. An id is never used again, so a lock once free stays free.

A lease is prepared as ``<id>.new`` and renamed once it is locked, written and its socket listens:
a ``.lock`` file that can be seen was never unlocked while its host lived.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
from contextlib import ExitStack, suppress
from pathlib import Path

from swarm.dispatch.ports import HostInfo
from swarm.kernel.errors import InvalidError, UnavailableError
from swarm.kernel.ids import new_id
from swarm.kernel.json import dump_bytes, loads

LOCK_SUFFIX = ".lock"
NEW_SUFFIX = ".new"
SOCKET_SUFFIX = ".sock"
_TOP_DESCRIPTOR = 4096
"""The kernel's table of descriptors is as long as the highest: 8 bytes each."""
_ROOM_AT_THE_TOP = 16
_HOST_ID = re.compile(r"host_[0-9a-f]{32}")


def is_host_id(text: str) -> bool:
    return _HOST_ID.fullmatch(text) is not None


class LeaseFolder:
    """The lock and socket files of the hosts of one home."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the folder, for its owner alone.

        Raises:
            UnavailableError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.path.stat().st_mode & 0o077:
                self.path.chmod(0o700)
        except OSError as error:
            raise UnavailableError(
                f"the folder of the hosts cannot be set up: {error.strerror}",
                where=str(self.path),
                remedy="make it yours and writable, or set SWARM_HOME to a folder that is",
            ) from None

    def file(self, host_id: str, suffix: str) -> Path:
        return self.path / (host_id + suffix)

    def prepare(self) -> tuple[str, int]:
        """Begin a lease: a new id, and the descriptor that holds its lock.

        Raises:
            OSError: the file cannot be written.
        """
        while True:
            host_id = new_id("host")
            path = self.file(host_id, NEW_SUFFIX)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if _try_lock(descriptor, fcntl.LOCK_EX) and path.exists():
                return host_id, _moved_up(descriptor)
            # A sweep came upon the file before it was locked; it is removing it.
            os.close(descriptor)

    def publish(self, info: HostInfo, descriptor: int) -> None:
        """Complete a lease: from now on the host can be seen."""
        os.write(descriptor, dump_bytes({"role": info.role, "pid": info.pid}) + b"\n")
        self.file(info.id, NEW_SUFFIX).rename(self.file(info.id, LOCK_SUFFIX))

    def is_alive(self, host_id: str) -> bool:
        """Whether the host or a process that inherited its lock still runs."""
        if not is_host_id(host_id):
            return False
        try:
            descriptor = _open(self.file(host_id, LOCK_SUFFIX))
        except PermissionError:
            return True  # Another user's: it cannot be told, so nothing may be taken from it.
        if descriptor is None:
            return False
        try:
            return not _try_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def open_lock(self, host_id: str) -> int | None:
        """The host's lock file for :func:`wait_until_free`, or None if there is none any more."""
        return _open(self.file(host_id, LOCK_SUFFIX)) if is_host_id(host_id) else None

    def list_alive(self) -> list[HostInfo]:
        """The hosts that are alive, oldest first."""
        return [
            info
            for host_id in self._ids(LOCK_SUFFIX)
            if self.is_alive(host_id) and (info := self._read(host_id))
        ]

    def sweep(self) -> list[str]:
        """Remove the files of dead hosts; return their ids. Any number may sweep at once."""
        swept = []
        for host_id in self._ids(LOCK_SUFFIX, NEW_SUFFIX, SOCKET_SUFFIX):
            with ExitStack() as stack, suppress(PermissionError, FileNotFoundError):
                # In this order: a lease that is renamed in between is then still seen. The locks
                # are kept until the files are gone, so that nobody prepares a lease meanwhile.
                locks = (_open(self.file(host_id, suffix)) for suffix in (NEW_SUFFIX, LOCK_SUFFIX))
                if all(lock is None or _take(stack, lock) for lock in locks):
                    # The lock goes last, so that a socket is never left without one.
                    for suffix in (SOCKET_SUFFIX, NEW_SUFFIX, LOCK_SUFFIX):
                        self.file(host_id, suffix).unlink(missing_ok=True)
                    swept.append(host_id)
        return swept

    def _ids(self, *suffixes: str) -> list[str]:
        try:
            names = [entry.name for entry in self.path.iterdir()]
        except FileNotFoundError:
            return []
        stems = {name.removesuffix(suffix) for name in names for suffix in suffixes}
        return sorted(stem for stem in stems if is_host_id(stem))

    def _read(self, host_id: str) -> HostInfo | None:
        try:
            document = loads(self.file(host_id, LOCK_SUFFIX).read_bytes())
        except (OSError, InvalidError):
            return None
        match document:
            case {"role": str(role), "pid": int(pid)}:
                return HostInfo(host_id, role, pid)
        return None


def _moved_up(descriptor: int) -> int:
    """The same open file under a high number.

    The kernel closes the descriptors of a dying process in the order of their numbers: what its
    sandboxes see it die by (a socket, a life line) goes before the lock, so that they are being
    killed when the lock is found free, even if the kernel takes its time in between.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _TOP_DESCRIPTOR if soft == resource.RLIM_INFINITY else min(soft, _TOP_DESCRIPTOR)
    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, limit - _ROOM_AT_THE_TOP)
    except OSError:
        return descriptor  # so many are open already: it is high enough
    os.close(descriptor)
    return moved


def wait_until_free(descriptor: int) -> None:
    """Block until nobody holds the lock of an open file, then close it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int | None:
    """Raises PermissionError if it is another user's."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def _take(stack: ExitStack, descriptor: int) -> bool:
    """Hold the lock of ``descriptor`` until the stack is left; False if a host holds it."""
    stack.callback(os.close, descriptor)
    return _try_lock(descriptor, fcntl.LOCK_SH)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
