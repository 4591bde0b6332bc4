"""A sandbox's init: the first process of its pid namespace, which keeps the namespaces and sleeps.

When it is killed, the kernel kills all that is inside. Orphans become its children; it ignores
their ends, so that the kernel reaps them by itself.

It shares the zygote's memory (``CLONE_VM``), as a thread would: to copy a Python process, and to
take the copy down again, costs milliseconds, and this costs microseconds. So no Python may run in
it. Its program is a list of system calls, put down below as machine code, which gives up all power
and then pauses for ever. The shared memory is out of the sandbox's reach: init is another user
(unless the zygote is an ordinary one), cannot be traced or looked into (the zygote is not
dumpable, and Landlock parts the handler from what is outside its domain), heeds no signal of its
own namespace, and has no signal handler that one could start.

Sources: System V ABI for AMD64 (A.2.1, system calls); Intel SDM, volume 2 (encodings);
``clone(2)``, ``pid_namespaces(7)``.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import syscalls
from .steps import LayerError

_NAMESPACES: Final = (
    syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
)
JOINED: Final = _NAMESPACES & ~syscalls.CLONE_NEWPID
"""What a sandbox's handler joins by ``setns``; it is born into the pid namespace."""

_POLL: Final = 7
_RT_SIGACTION: Final = 13
_PAUSE: Final = 34
_SETGROUPS: Final = 116
_SETRESUID: Final = 117
_SETRESGID: Final = 119
_EXIT_GROUP: Final = 231
_STACK_BYTES: Final = 512
"""Its start takes some words; it never pushes more, nor does a signal, since it handles none."""
_FIRST_STATUS: Final = 64
"""Exit status of an init whose first call was refused; one more for each later call."""

# mov to the register of each argument: rdi, rsi, rdx, r10, r8, r9 (REX.W B8+r, 64-bit immediate).
_LOAD_ARGUMENT: Final = (
    b"\x48\xbf",
    b"\x48\xbe",
    b"\x48\xba",
    b"\x49\xba",
    b"\x49\xb8",
    b"\x49\xb9",
)
_LOAD_NUMBER: Final = b"\xb8"  # mov eax, 32-bit immediate
_LOAD_STATUS: Final = b"\xbf"  # mov edi, 32-bit immediate
_SYSCALL: Final = b"\x0f\x05"
_IS_ZERO: Final = b"\x48\x85\xc0"  # test rax, rax
_SKIP_IF_ZERO: Final = b"\x74"  # jz, 8-bit displacement
_JUMP: Final = b"\xeb"  # jmp, 8-bit displacement


@dataclass(frozen=True)
class Call:
    """A system call that must return 0; without it, init ends with a status that tells which."""

    name: str
    number: int
    arguments: tuple[int, ...]


@dataclass(frozen=True)
class Init:
    """A running init."""

    pid: int
    pidfd: int
    stack: Any
    """Kept for as long as it runs."""


class InitProgram:
    """What all inits of a zygote run; starts them.

    Args:
        zygote: a pidfd of the zygote.
        locks: descriptors that every init keeps open.
        uid: the user and group that it becomes; None where it stays the zygote's.
        instructions: its seccomp filter.
    """

    def __init__(
        self, zygote: int, locks: Sequence[int], uid: int | None, instructions: bytes
    ) -> None:
        self._kept: list[Any] = []
        self._calls = self._list_calls(zygote, locks, uid, instructions)
        code = assemble(self._calls)
        self._memory = mmap.mmap(-1, len(code), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.write(code)
        self._entry = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        syscalls.make_executable(self._entry, len(code))

    def start(self) -> Init:
        """A new init, with namespaces of its own; raises OSError where the kernel refuses one."""
        stack = ctypes.create_string_buffer(_STACK_BYTES)
        top = (ctypes.addressof(stack) + _STACK_BYTES) & ~0xF
        pid = syscalls.clone_onto(self._entry, top, _NAMESPACES | syscalls.CLONE_VM)
        return Init(pid, os.pidfd_open(pid), stack)

    def failure(self, status: int) -> LayerError:
        """Why an init ended before its time, from its wait status."""
        index = os.waitstatus_to_exitcode(status) - _FIRST_STATUS
        if 0 <= index < len(self._calls):
            return LayerError("init", 0, f"the kernel refused {self._calls[index].name}")
        return LayerError("init", 0, "it was killed")

    def _list_calls(
        self, zygote: int, locks: Sequence[int], uid: int | None, instructions: bytes
    ) -> list[Call]:
        calls = [
            Call("rt_sigaction", _RT_SIGACTION, (signal.SIGCHLD, self._keep(_ignore()), 0, 8)),
            Call("prctl", syscalls.PRCTL, (syscalls.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
        ]
        if uid is not None:
            calls += [
                Call("setgroups", _SETGROUPS, (0, 0)),
                Call("setresgid", _SETRESGID, (uid, uid, uid)),
                Call("setresuid", _SETRESUID, (uid, uid, uid)),
            ]
        header, none = (
            (ctypes.c_uint32 * 2)(syscalls.CAPABILITY_VERSION, 0),
            (ctypes.c_uint32 * 6)(),
        )
        watched = ctypes.create_string_buffer(struct.pack("=ihh", zygote, select.POLLIN, 0), 8)
        filter_program = syscalls.FilterProgram(len(instructions) // 8, instructions)
        calls += [
            Call("capset", syscalls.CAPSET, (self._keep(header), self._keep(none))),
            # After the change of user, which clears it. Whoever is late finds the zygote dead.
            Call("prctl", syscalls.PRCTL, (syscalls.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)),
            Call("poll", _POLL, (self._keep(watched), 1, 0)),
            *(
                Call("close_range", syscalls.CLOSE_RANGE, (first, last, 0))
                for first, last in syscalls.gaps_between(locks)
            ),
            Call(
                "seccomp",
                syscalls.SECCOMP,
                (syscalls.SECCOMP_SET_MODE_FILTER, 0, self._keep(filter_program)),
            ),
        ]
        return calls

    def _keep(self, value: Any) -> int:
        """The address of a value that must live as long as the program."""
        self._kept.append(value)
        return ctypes.addressof(value)


def assemble(calls: Sequence[Call]) -> bytes:
    """Machine code that makes the calls in order, then pauses for ever."""
    code = b""
    for index, call in enumerate(calls):
        for load, argument in zip(_LOAD_ARGUMENT, call.arguments, strict=False):
            code += load + struct.pack("<Q", argument)
        code += _LOAD_NUMBER + struct.pack("<I", call.number) + _SYSCALL
        give_up = _LOAD_STATUS + struct.pack("<I", _FIRST_STATUS + index)
        give_up += _LOAD_NUMBER + struct.pack("<I", _EXIT_GROUP) + _SYSCALL
        code += _IS_ZERO + _SKIP_IF_ZERO + bytes([len(give_up)]) + give_up
    pause = _LOAD_NUMBER + struct.pack("<I", _PAUSE) + _SYSCALL
    return code + pause + _JUMP + struct.pack("<b", -len(pause) - 2)


def _ignore() -> Any:
    """``struct sigaction`` of the kernel: SIG_IGN, no flags, no restorer, no mask."""
    return (ctypes.c_uint64 * 4)(1, 0, 0, 0)
