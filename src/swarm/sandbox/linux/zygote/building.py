"""Builds one sandbox, in the process that becomes its handler.

Order matters: mounts, network and identity need power, so they come first; each power is given up
as soon as it is not needed, and nothing of the package is touched before the last one is gone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from typing import Any

from . import init, syscalls, template
from .steps import LayerError, layer

_INERT = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
_VOLATILE = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOATIME
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

SECURE_BITS = 0xEF
"""NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, all locked; KEEP_CAPS locked off."""


def join_cgroups(process_files: list[str]) -> None:
    with layer("cgroup"):
        for path in process_files:
            template.write_text(path, "0")


def go_first_when_memory_runs_out(process: str) -> None:
    """Have the kernel prefer this sandbox's processes over all others when it must kill."""
    with layer("resource-limits"):
        template.write_text(f"{process}/oom_score_adj", "1000")


def stand_back(niceness: int) -> None:
    """Let other processes go first; the host undoes it before the call."""
    if niceness:
        with layer("priority"):
            os.setpriority(os.PRIO_PROCESS, 0, niceness)


def enter_namespaces(init_process: int) -> None:
    """Those of the sandbox's init, and a cgroup namespace whose root is the group just joined.

    The user namespace comes last, when nothing is left to build.

    Args:
        init_process: a pidfd of the sandbox's init.
    """
    with layer("namespaces"):
        syscalls.join_namespaces(init_process, init.JOINED)
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
        socket.sethostname("sandbox")


def build_root(plan: dict[str, Any], staging: str, uid: int, maps: dict[str, int]) -> None:
    """Add this sandbox's own mounts to its copy of the template and make that the root."""
    os.chdir(staging)
    with layer("proc"):
        syscalls.mount(
            "proc",
            "proc",
            "proc",
            syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC,
            "hidepid=ptraceable",  # It shows only what the handler could trace: not init.
        )
        for name in plan["masked"]:
            _mask(f"proc/{name}")
    with layer("work-folders"):
        _mount_volatile("tmp", plan["work"], "1777", uid)
        _mount_volatile("outputs", plan["outputs"], "0700", uid)
    with layer("package"):
        _bind_read_only(plan["package"], "package", maps)
        if plan["environment_root"]:
            _bind_read_only(plan["environment_root"], "environment", maps)
    if plan["inputs"]:
        with layer("inputs"):
            _bind_inputs(plan["inputs"], maps)
    with layer("pivot-root"):
        syscalls.pivot_root(".", ".")
        syscalls.unmount_lazily(".")
        os.chdir("/")


def _mask(path: str) -> None:
    """Cover a file of ``/proc`` with the null device, opened by nobody; a folder with an empty one.

    A bind takes over the attributes of the template's mounts, which allow nothing.
    """
    syscalls.bind("inputs" if path.endswith("/") else template.MASK, path)


def _mount_volatile(target: str, limits: dict[str, int], mode: str, uid: int) -> None:
    options = f"mode={mode},size={limits['bytes']},nr_inodes={limits['files']},uid={uid},gid={uid}"
    syscalls.mount("swarm", target, "tmpfs", _VOLATILE, options)


def _bind_inputs(inputs: list[list[str]], maps: dict[str, int]) -> None:
    syscalls.mount("swarm", "inputs", "tmpfs", _VOLATILE, "mode=0755,size=1m,nr_inodes=10000")
    for name, source in inputs:
        target = f"inputs/{name}"
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        _bind_read_only(source, target, maps, extra=syscalls.MOUNT_ATTR_NOEXEC)
    descriptor = os.open("inputs", os.O_PATH | os.O_CLOEXEC)
    syscalls.set_mount_attributes(descriptor, _INERT, recursive=False)
    os.close(descriptor)


def _bind_read_only(source: str, target: str, maps: dict[str, int], extra: int = 0) -> None:
    """Bind with the owner shown as the sandbox's user, where the file system can do that.

    As an ordinary user there is nothing to map: what is theirs is the sandbox's already.
    """
    mapping = -1
    if maps:
        found = os.stat(source)
        mapping = maps.get(f"{found.st_uid}:{found.st_gid}", -1)
    if mapping >= 0 and _try_bind(source, target, extra, mapping):
        return
    _refuse_if_private(source, is_mapped=not maps)
    _try_bind(source, target, extra, -1)


def _try_bind(source: str, target: str, extra: int, mapping: int) -> bool:
    """False where the file system cannot map owners."""
    descriptor = syscalls.clone_tree(source, recursive=True)
    try:
        syscalls.set_mount_attributes(
            descriptor, _INERT | extra, recursive=True, user_namespace=mapping
        )
        syscalls.attach(descriptor, target)
    except OSError as error:
        if mapping >= 0 and error.errno in (errno.EINVAL, errno.EPERM, errno.EBUSY):
            return False
        raise
    finally:
        os.close(descriptor)
    return True


def _refuse_if_private(source: str, *, is_mapped: bool) -> None:
    """Without a mapping, the sandbox's user is a stranger to the files: say so at once."""
    if is_mapped:
        return
    mode = os.stat(source).st_mode
    wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
    if mode & wanted != wanted:
        raise LayerError(
            "idmapped-mount",
            errno.EACCES,
            f"{source} is private to its owner, and its file system cannot map owners",
        )


def open_proxy_listener(port: int) -> socket.socket:
    """Bring the loopback up and listen on it; the host accepts, from outside the namespace."""
    with layer("network"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
        flags = struct.unpack("16sh14x", answer)[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        return listener


def give_up_power(process: str, uid: int, inside: int, last_capability: int) -> None:
    """Become the sandbox's own user in a user namespace that owns nothing, without capabilities.

    Args:
        process: this process's folder in the host's ``/proc``, as ``/proc/self/fd/N``.
        uid: the user and group to become, as the zygote's user namespace counts them.
        inside: the same user as the handler will see it.
        last_capability: the kernel's highest capability number.
    """
    with layer("identity"):
        if os.getuid() != uid:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            # Root may make a user namespace where ordinary users may not, so that one power is
            # kept over the change of ids. The change made /proc/self root's own: undo that too,
            # for the mapping has to be written there.
            syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
            os.setresuid(uid, uid, uid)
            syscalls.set_capabilities(1 << syscalls.CAP_SYS_ADMIN)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    with layer("user-namespace"):
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        template.write_own_mapping(process, inside, uid, uid)
    with layer("capabilities"):
        syscalls.drop_bounding_set(last_capability)
        syscalls.prctl(syscalls.PR_SET_SECUREBITS, SECURE_BITS)
        syscalls.set_capabilities(0)
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    with layer("no-new-privileges"):
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
