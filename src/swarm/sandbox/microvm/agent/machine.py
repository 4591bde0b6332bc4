"""The guest as a machine: mounts, control group, clock, entropy, memory."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import struct
import time
from typing import Any

AGENT_ID = 1000
"""uid and gid of the handler."""
GROUP = "/sys/fs/cgroup/handler"
BOOT_TIME = 1_000_000_000 * 10**9
"""The clock before the snapshot is taken. What keeps random state and renews it as time passes
(OpenSSL, each hour) finds years gone by after a restore, and renews it."""

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND = 1, 2, 4, 8, 4096
_SAFE = _MS_NOSUID | _MS_NODEV
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
SEED_BYTES = 64
_SEED_HEAD = struct.pack("ii", SEED_BYTES * 8, SEED_BYTES)
_POPULATE_WRITE = 23
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_BLKFLSBUF = 0x1261
_SYSLOG_OFF = "1 1 1 1"
_DISKS = {"package": "/dev/vdc", "inputs": "/dev/vdd"}
_PACKAGE_DISK = "/run/package"
_KEPT_FREE = 24 * 1024 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = [text.encode() for text in (source, target, kind)]
    if _libc.mount(*arguments, ctypes.c_ulong(flags), options.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {kind} on {target}: {os.strerror(code)}")


def mount_system() -> None:
    """What is the same for every package."""
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", _SAFE | _MS_NOEXEC)
    for name in ("/tmp", "/run"):
        mount("tmpfs", name, "tmpfs", _SAFE, "mode=1777")
    links = {"/dev/shm": "/tmp", "/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0"}
    links |= {"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2"}
    for path, target in links.items():
        if not os.path.lexists(path):
            os.symlink(target, path)
    socket.sethostname("sandbox")
    raise_loopback()
    write("/proc/sys/kernel/printk", _SYSLOG_OFF)


def mount_package() -> None:
    """Mount the package's disk; what was on it when the machine booted was nothing."""
    os.mkdir(_PACKAGE_DISK)
    _mount_disk("package", _PACKAGE_DISK)
    for name in ("package", "environment"):
        if os.path.isdir(f"{_PACKAGE_DISK}/{name}"):
            mount(f"{_PACKAGE_DISK}/{name}", f"/{name}", "", _MS_BIND)


def raise_loopback() -> None:
    request = struct.pack("16sh14x", b"lo", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def make_group(limits: dict[str, Any]) -> None:
    """The control group that bounds the handler and all that it starts."""
    write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids")
    os.mkdir(GROUP)
    write(f"{GROUP}/memory.max", str(limits["memory_bytes"]))
    write(f"{GROUP}/memory.oom.group", "1")
    write(f"{GROUP}/pids.max", str(limits["processes"]))


def mount_work(limits: dict[str, Any]) -> None:
    """The handler's writable folders."""
    for target, size, files in (
        ("/tmp", limits["work_bytes"], limits["work_files"]),
        ("/outputs", limits["output_files_bytes"], limits["output_files"] + 16),
    ):
        mount("tmpfs", target, "tmpfs", _SAFE, f"mode=1777,size={size},nr_inodes={files}")


def own_memory() -> None:
    """Give this process pages of its own, writable at once, in place of those that it shares."""
    with open("/proc/self/maps") as file:
        lines = file.read().splitlines()
    for line in lines:
        place, access, _, _, _, *name = line.split()
        if access == "rw-p" and name != ["[stack]"]:
            start, end = (int(text, 16) for text in place.split("-"))
            _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _POPULATE_WRITE)


def mount_inputs() -> None:
    """Mount the invocation's inputs."""
    _mount_disk("inputs", "/inputs")


def _mount_disk(serial: str, target: str) -> None:
    """Mount a disk whose content has changed since the machine booted."""
    device = find_disk(serial)
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _BLKFLSBUF, 0)
    os.close(descriptor)
    mount(device, target, "squashfs", _SAFE | _MS_RDONLY)


def find_disk(serial: str) -> str:
    """The disk of that name, or where disks have no names (Firecracker), of that place."""
    for name in os.listdir("/sys/block"):
        path = f"/sys/block/{name}/serial"
        if os.path.exists(path):
            with open(path) as file:
                if file.read().strip() == serial:
                    return f"/dev/{name}"
    return _DISKS[serial]


def set_clock(nanoseconds: int) -> None:
    time.clock_settime_ns(time.CLOCK_REALTIME, nanoseconds)


class RandomSource:
    """The kernel's random generator, open for writing."""

    def __init__(self) -> None:
        self._descriptor = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)

    def reseed(self, seed: bytes) -> None:
        """Give it entropy of the host's, and make it use that at once.

        Args:
            seed: of SEED_BYTES.
        """
        # Arguments that are not written to are tried after those that are, by way of an exception.
        fcntl.ioctl(self._descriptor, _RNDADDENTROPY, bytearray(_SEED_HEAD + seed))
        fcntl.ioctl(self._descriptor, _RNDRESEEDCRNG)


def clear_free_memory() -> None:
    """Make memory that is free all zeros, which a snapshot need not hold."""
    with open("/proc/meminfo") as file:
        values = dict(line.split(":") for line in file)
    size = int(values["MemFree"].split()[0]) * 1024 - _KEPT_FREE
    if size > 0:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, size, flags=flags).close()


class Usage:
    """What the handler's group uses. Its files are opened ahead."""

    def __init__(self) -> None:
        self._processes = os.open(f"{GROUP}/pids.current", os.O_RDONLY | os.O_CLOEXEC)
        self._peak = os.open(f"{GROUP}/memory.peak", os.O_RDONLY | os.O_CLOEXEC)

    def processes(self) -> int:
        """Processes and threads that live."""
        return int(os.pread(self._processes, 64, 0))

    def read(self, *, look_for_kills: bool) -> dict[str, int]:
        events = read(f"{GROUP}/memory.events") if look_for_kills else ""
        return {
            "peak_memory_bytes": int(os.pread(self._peak, 64, 0)),
            "oom_kills": entry(events, "oom_kill"),
        }


def entry(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
