"""Assembles the seccomp filters: classic BPF that decides on every system call of a sandbox.

An allow-list. A call of a foreign architecture (i386, x32) kills the process; a call that is known
and refused gives EPERM; one that the list has never heard of gives ENOSYS, so that libraries fall
back to older calls. Sources: ``linux/filter.h``, ``linux/seccomp.h``, ``seccomp(2)``.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from swarm.sandbox.linux import calls

AUDIT_ARCH_X86_64: Final = 0xC000003E
X32_BIT: Final = 0x40000000

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000

_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16

LOAD: Final = 0x20
AND: Final = 0x54
JUMP: Final = 0x05
IF_EQUAL: Final = 0x15
IF_GREATER: Final = 0x25
IF_AT_LEAST: Final = 0x35
IF_ANY_BIT: Final = 0x45
RETURN: Final = 0x06

_NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_SAME_PARENT: Final = 0x8000
"""CLONE_PARENT: would give the zygote, who is the handler's parent, a child unknown to it. A pid
namespace does not end before the parent of each of its processes has reaped it."""

_UNIX, _INET, _INET6 = 1, 2, 10
_STREAM, _DATAGRAM, _SEQPACKET = 1, 2, 5
_PROTOCOLS: Final = (0, 6, 17)
"""The default of the type, TCP, UDP."""

_IOCTLS: Final = (
    0x5401,  # TCGETS
    0x5402,  # TCSETS
    0x5403,  # TCSETSW
    0x5404,  # TCSETSF
    0x540F,  # TIOCGPGRP
    0x5410,  # TIOCSPGRP
    0x5413,  # TIOCGWINSZ
    0x541B,  # FIONREAD
    0x5421,  # FIONBIO
    0x5450,  # FIONCLEX
    0x5451,  # FIOCLEX
    0x802C542A,  # TCGETS2
    0x40049409,  # FICLONE
)
_PRCTLS: Final = (
    *(1, 2, 3, 4),  # PDEATHSIG, DUMPABLE: set and get
    *(15, 16),  # NAME
    *(21, 23, 27),  # get SECCOMP, CAPBSET, SECUREBITS
    *(29, 30),  # TIMERSLACK
    *(36, 37),  # CHILD_SUBREAPER
    *(38, 39),  # NO_NEW_PRIVS
    *(41, 42),  # THP_DISABLE
    47,  # CAP_AMBIENT: there is nothing to raise
    0x53564D41,  # SET_VMA: names of anonymous memory
)
_LEASES_AND_NOTICES: Final = (1024, 1026)
"""F_SETLEASE: who opens the file elsewhere waits, for up to 45 seconds. F_NOTIFY: tells what others
do in a folder."""
_SOCKET_LEVEL, _TCP_LEVEL = 1, 6
_OTHER_LEVELS: Final = (0, 17, 41)
"""IP, UDP, IPv6."""
_REFUSED_SOCKET_OPTIONS: Final = (
    13,  # LINGER: who closes the socket last waits, and it can be handed to the host to close
    *(26, 50, 51, 52),  # ATTACH_FILTER, ATTACH_BPF, ATTACH_REUSEPORT_CBPF and _EBPF
)
_REFUSED_TCP_OPTIONS: Final = (
    19,  # REPAIR
    31,  # ULP: TLS in the kernel
)
_PERSONALITIES: Final = (0, 0xFFFFFFFF)


class Instruction(NamedTuple):
    """One ``struct sock_filter``; jumps count the instructions that are skipped."""

    code: int
    if_true: int
    if_false: int
    value: int


def refuse(code: int) -> int:
    """The action that makes a call fail with errno ``code``."""
    return _ERRNO | code


def handler_filter(*, unix_sockets: bool, memory_files: bool = True) -> bytes:
    """The filter of a handler.

    Args:
        memory_files: whether it may make nameless files in memory. Not where memory is bounded by
            looking at what processes map: such files need not be mapped.
        unix_sockets: whether it may make named Unix sockets. Not where a live directory of the
            host is mounted: a socket in it would be a way out that a read-only mount leaves open.
    """
    conditional = {
        "clone": [
            _load(_argument(0)),
            Instruction(IF_ANY_BIT, 0, 1, _NEW_NAMESPACES | _SAME_PARENT),
            _return(refuse(errno.EPERM)),
            _return(ALLOW),
        ],
        "clone3": [_return(refuse(errno.ENOSYS))],
        "socket": _socket_rule(unix_sockets=unix_sockets),
        "socketpair": _socketpair_rule(datagrams=unix_sockets),
        "fcntl": _none_of(1, _LEASES_AND_NOTICES, refuse(errno.EPERM)),
        "setsockopt": _option_rule(),
        "ioctl": _one_of(1, _IOCTLS, refuse(errno.ENOTTY)),
        "prctl": _one_of(0, _PRCTLS, refuse(errno.EPERM)),
        "personality": _one_of(0, _PERSONALITIES, refuse(errno.EPERM)),
    }
    rules = [(calls.CONDITIONAL[name], rule) for name, rule in conditional.items()]
    if not memory_files:
        rules.append((calls.ALLOWED["memfd_create"], [_return(refuse(errno.ENOSYS))]))
    return pack(_program(calls.ALLOWED.values(), rules))


def init_filter() -> bytes:
    """The filter of a sandbox's init, which only sleeps."""
    return pack(_program((calls.ALLOWED[name] for name in calls.INIT), []))


def pack(program: Sequence[Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def unpack(data: bytes) -> list[Instruction]:
    return [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", data)]


def _program(
    allowed: Iterable[int], rules: Sequence[tuple[int, list[Instruction]]]
) -> list[Instruction]:
    program = [
        _load(_ARCHITECTURE),
        Instruction(IF_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        _return(KILL),
        _load(_NUMBER),
        Instruction(IF_AT_LEAST, 0, 1, X32_BIT),
        _return(KILL),
    ]
    for number, rule in rules:
        program += [Instruction(IF_EQUAL, 0, len(rule), number), *rule]
    newest = max(calls.ALLOWED.values())
    program += [Instruction(IF_GREATER, 0, 1, newest), _return(refuse(errno.ENOSYS))]
    return program + _search(_ranges(allowed))


def _search(ranges: Sequence[tuple[int, int]]) -> list[Instruction]:
    """A decision tree: ALLOW within one of the ranges (ends included), else EPERM."""
    if len(ranges) == 1:
        first, last = ranges[0]
        return [
            Instruction(IF_AT_LEAST, 0, 2, first),
            Instruction(IF_GREATER, 1, 0, last),
            _return(ALLOW),
            _return(refuse(errno.EPERM)),
        ]
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    # A conditional jump reaches 255 instructions, an unconditional one any number.
    branch = [
        Instruction(IF_AT_LEAST, 0, 1, ranges[middle][0]),
        Instruction(JUMP, 0, 0, len(below)),
    ]
    return branch + below + above


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Consecutive numbers joined, in order."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _socket_rule(*, unix_sockets: bool) -> list[Instruction]:
    inet = [
        _load(_argument(1)),
        Instruction(AND, 0, 0, 0xF),
        Instruction(IF_EQUAL, 2, 0, _STREAM),
        Instruction(IF_EQUAL, 1, 0, _DATAGRAM),
        _return(refuse(errno.EPERM)),
        *_one_of(2, _PROTOCOLS, refuse(errno.EPROTONOSUPPORT)),
    ]
    return [
        _load(_argument(0)),
        Instruction(IF_EQUAL, 0, 1, _UNIX),
        _return(ALLOW if unix_sockets else refuse(errno.EACCES)),
        Instruction(IF_EQUAL, 2, 0, _INET),
        Instruction(IF_EQUAL, 1, 0, _INET6),
        _return(refuse(errno.EAFNOSUPPORT)),
        *inet,
    ]


def _socketpair_rule(*, datagrams: bool) -> list[Instruction]:
    """Datagram pairs can send to any named socket, so they go where named sockets go."""
    types = (_STREAM, _DATAGRAM, _SEQPACKET) if datagrams else (_STREAM, _SEQPACKET)
    check = [
        _load(_argument(1)),
        Instruction(AND, 0, 0, 0xF),
        *_is_one_of(types, refuse(errno.EACCES)),
    ]
    return [
        _load(_argument(0)),
        Instruction(IF_EQUAL, 1, 0, _UNIX),
        _return(refuse(errno.EAFNOSUPPORT)),
        *check,
    ]


def _option_rule() -> list[Instruction]:
    of_sockets = _none_of(2, _REFUSED_SOCKET_OPTIONS, refuse(errno.EPERM))
    of_tcp = _none_of(2, _REFUSED_TCP_OPTIONS, refuse(errno.EPERM))
    return [
        _load(_argument(1)),
        Instruction(IF_EQUAL, 0, len(of_sockets), _SOCKET_LEVEL),
        *of_sockets,
        Instruction(IF_EQUAL, 0, len(of_tcp), _TCP_LEVEL),
        *of_tcp,
        *_is_one_of(_OTHER_LEVELS, refuse(errno.ENOPROTOOPT)),
    ]


def _none_of(argument: int, values: Sequence[int], refused: int) -> list[Instruction]:
    count = len(values)
    tests = [Instruction(IF_EQUAL, count - index, 0, value) for index, value in enumerate(values)]
    return [_load(_argument(argument)), *tests, _return(ALLOW), _return(refused)]


def _one_of(argument: int, values: Sequence[int], otherwise: int) -> list[Instruction]:
    return [_load(_argument(argument)), *_is_one_of(values, otherwise)]


def _is_one_of(values: Sequence[int], otherwise: int) -> list[Instruction]:
    count = len(values)
    tests = [Instruction(IF_EQUAL, count - index, 0, value) for index, value in enumerate(values)]
    return [*tests, _return(otherwise), _return(ALLOW)]


def _argument(index: int) -> int:
    """Where the low half of an argument is; the kernel ignores the high half of all we test."""
    return _ARGUMENTS + 8 * index


def _load(offset: int) -> Instruction:
    return Instruction(LOAD, 0, 0, offset)


def _return(action: int) -> Instruction:
    return Instruction(RETURN, 0, 0, action)
