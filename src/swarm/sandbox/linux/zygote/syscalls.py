"""System calls that Python's ``os`` lacks, through libc's ``syscall`` (x86-64 Linux only).

Numbers and structures are those of ``arch/x86/entry/syscalls/syscall_64.tbl`` and ``uapi/linux``.
Every function raises OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from typing import Any, Final

CLONE_VM: Final = 0x00000100
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_NOATIME: Final = 0x400
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_SLAVE: Final = 0x80000
MNT_DETACH: Final = 2

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR_IDMAP: Final = 0x100000

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
OPEN_TREE_CLONE: Final = 1
MOVE_MOUNT_F_EMPTY_PATH: Final = 4

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_NAME: Final = 15
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

CAP_SYS_ADMIN: Final = 21
CAPABILITY_VERSION: Final = 0x20080522
"""``_LINUX_CAPABILITY_VERSION_3``."""

SECCOMP_SET_MODE_FILTER: Final = 1

_CLONE: Final = 56
_SIGNAL_AT_EXIT: Final = 17  # SIGCHLD
CAPSET: Final = 126
_PIVOT_ROOT: Final = 155
PRCTL: Final = 157
_MOUNT: Final = 165
_UMOUNT2: Final = 166
_UNSHARE: Final = 272
_SETNS: Final = 308
SECCOMP: Final = 317
_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
CLOSE_RANGE: Final = 436
_MOUNT_SETATTR: Final = 442
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_ADD_RULE: Final = 445
_LANDLOCK_RESTRICT_SELF: Final = 446

# PyDLL keeps the interpreter's lock over the call, so that a clone finds it held in the child too.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_clone_onto: Final = _libc.clone
_clone_onto.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_prctl: Final = _libc.prctl
_prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_mprotect: Final = _libc.mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def _call(number: int, *arguments: Any) -> int:
    wrapped = [
        ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments
    ]
    result: int = _syscall(ctypes.c_long(number), *wrapped)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class FilterProgram(ctypes.Structure):
    """``struct sock_fprog``; its instructions must outlive it."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def clone(flags: int) -> int:
    """Fork into new namespaces: 0 in the child, its pid in the parent.

    Python's own after-fork work is not done in the child; it must fork again (or exit) before
    it runs code that relies on it.
    """
    return _call(_CLONE, flags | _SIGNAL_AT_EXIT, 0, 0, 0, 0)


def clone_onto(entry: int, stack: int, flags: int) -> int:
    """Start a process at the address ``entry``, on its own ``stack`` (its top, 16-byte aligned)."""
    pid: int = _clone_onto(entry, stack, flags | _SIGNAL_AT_EXIT, None)
    if pid == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return pid


def make_executable(address: int, size: int) -> None:
    """Make whole pages executable, and no longer writable."""
    if _mprotect(address, size, mmap.PROT_READ | mmap.PROT_EXEC) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def join_namespaces(descriptor: int, kinds: int) -> None:
    """``setns``; the descriptor is a pidfd, or a namespace's own."""
    _call(_SETNS, descriptor, kinds)


def unshare(flags: int) -> None:
    _call(_UNSHARE, flags)


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    _call(
        _MOUNT,
        source.encode(),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        flags,
        options.encode(),
    )


def bind(source: str, target: str) -> None:
    """Show ``source`` at ``target`` too, with the attributes of the mount that it is on."""
    mount(source, target, None, MS_BIND)


def unmount_lazily(target: str) -> None:
    _call(_UMOUNT2, os.fsencode(target), MNT_DETACH)


def pivot_root(new: str, old: str) -> None:
    _call(_PIVOT_ROOT, os.fsencode(new), os.fsencode(old))


def clone_tree(path: str, *, recursive: bool) -> int:
    """A detached copy of the mount at ``path``, as a descriptor."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return _call(_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags)


def set_mount_attributes(
    descriptor: int, attributes: int, *, recursive: bool, user_namespace: int = -1
) -> None:
    """Set ``MOUNT_ATTR_*`` on a detached mount and cut it off from the host's propagation."""
    change = _MountAttributes(attributes, 0, MS_PRIVATE, 0)
    if user_namespace >= 0:
        change.attr_set |= MOUNT_ATTR_IDMAP
        change.userns_fd = user_namespace
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _call(
        _MOUNT_SETATTR,
        descriptor,
        b"",
        flags,
        ctypes.byref(change),
        ctypes.sizeof(change),
    )


def attach(descriptor: int, target: str) -> None:
    """Put a detached mount at ``target``."""
    _call(_MOVE_MOUNT, descriptor, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)


def prctl(option: int, argument: int | bytes = 0, second: int = 0) -> None:
    _call(PRCTL, option, argument, second, 0, 0)


def drop_bounding_set(last_capability: int) -> None:
    """Take every capability out of what programs executed from here on may ever get."""
    for capability in range(last_capability + 1):
        if _prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == -1:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def set_capabilities(mask: int) -> None:
    """Make ``mask`` the effective and permitted set, and empty the inheritable (``capset`` v3)."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _call(CAPSET, header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0))


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor that is not in ``kept``."""
    for first, last in gaps_between(kept):
        _call(CLOSE_RANGE, first, last, 0)


def gaps_between(kept: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each range of descriptors that has none of ``kept``."""
    gaps, first = [], 0
    for descriptor in sorted(set(kept)):
        if descriptor > first:
            gaps.append((first, descriptor - 1))
        first = descriptor + 1
    return [*gaps, (first, 0xFFFFFFFF)]


def install_filter(instructions: bytes) -> None:
    """Install a seccomp program: 8 bytes for each instruction."""
    program = FilterProgram(len(instructions) // 8, instructions)
    _call(SECCOMP, SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(program))


def landlock_version() -> int:
    """The kernel's Landlock ABI, 0 where it has none."""
    try:
        return _call(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def landlock_create(handled_access: int, scoped: int, version: int) -> int:
    attributes = _RulesetAttributes(handled_access, 0, scoped)
    size = 8 if version < 4 else 16 if version < 6 else 24
    return _call(_LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), size, 0)


def landlock_allow(ruleset: int, path: str, access: int) -> None:
    """Allow ``access`` at and below ``path``."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(access, descriptor)
        _call(_LANDLOCK_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def landlock_restrict(ruleset: int) -> None:
    _call(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
