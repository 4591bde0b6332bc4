"""The filters, run by a small machine that knows the few instructions they use."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.sandbox.linux import calls, seccomp
from swarm.sandbox.linux.seccomp import ALLOW, KILL, refuse

X86_64 = seccomp.AUDIT_ARCH_X86_64
OPEN = seccomp.unpack(seccomp.handler_filter(unix_sockets=True))
CLOSED = seccomp.unpack(seccomp.handler_filter(unix_sockets=False))
INIT = seccomp.unpack(seccomp.init_filter())
EPERM = refuse(errno.EPERM)


def decide(
    program: list[seccomp.Instruction], number: int, *arguments: int, machine: int = X86_64
) -> int:
    """What the kernel would do with a call (``struct seccomp_data``)."""
    filled = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, machine, 0, *filled)
    position = accumulator = 0
    for _ in range(len(program)):
        code, if_true, if_false, value = program[position]
        position += 1
        if code == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == seccomp.AND:
            accumulator &= value
        elif code == seccomp.JUMP:
            position += value
        elif code == seccomp.RETURN:
            return value
        else:
            held = {
                seccomp.IF_EQUAL: accumulator == value,
                seccomp.IF_GREATER: accumulator > value,
                seccomp.IF_AT_LEAST: accumulator >= value,
                seccomp.IF_ANY_BIT: bool(accumulator & value),
            }[code]
            position += if_true if held else if_false
    raise AssertionError("the program does not end")


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_every_call_gets_the_listed_decision(number: int, arguments: list[int]) -> None:
    decision = decide(OPEN, number, *arguments)
    if number >= seccomp.X32_BIT:
        assert decision == KILL
    elif number in calls.ALLOWED.values():
        assert decision == ALLOW
    elif number not in calls.CONDITIONAL.values():
        newest = max(calls.ALLOWED.values())
        assert decision == refuse(errno.ENOSYS if number > newest else errno.EPERM)


@pytest.mark.parametrize("program", [OPEN, CLOSED])
def test_every_number_in_reach(program: list[seccomp.Instruction]) -> None:
    allowed = set(calls.ALLOWED.values())
    conditional = set(calls.CONDITIONAL.values())
    for number in range(max(allowed) + 100):
        if number not in conditional:
            assert (decide(program, number) == ALLOW) == (number in allowed), number


@given(st.integers(0, 2**32 - 1).filter(lambda machine: machine != X86_64), st.integers(0, 600))
def test_other_machines_are_killed(machine: int, number: int) -> None:
    assert decide(OPEN, number, machine=machine) == KILL
    assert decide(INIT, number, machine=machine) == KILL


def test_init_may_do_next_to_nothing() -> None:
    may = {number for number in range(600) if decide(INIT, number) == ALLOW}
    assert may == {calls.ALLOWED[name] for name in calls.INIT}
    for name in ("openat", "execve", "fork", "connect", "kill"):
        assert calls.ALLOWED[name] not in may


@pytest.mark.parametrize(
    "kind",
    [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x8000],
)
@given(rest=st.integers(0, 2**32 - 1))
def test_no_clone_makes_a_namespace_or_a_sibling(kind: int, rest: int) -> None:
    assert decide(OPEN, calls.CONDITIONAL["clone"], kind | rest) == EPERM


def test_threads_and_forks_are_allowed() -> None:
    clone = calls.CONDITIONAL["clone"]
    assert decide(OPEN, clone, 17) == ALLOW
    assert decide(OPEN, clone, 0x3D0F00) == ALLOW  # what pthread_create asks for
    assert decide(OPEN, calls.CONDITIONAL["clone3"]) == refuse(errno.ENOSYS)


STREAM, DATAGRAM, RAW, SEQPACKET, CLOEXEC = 1, 2, 3, 5, 0x80000


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_only_ordinary_sockets(family: int, kind: int, protocol: int) -> None:
    socket = calls.CONDITIONAL["socket"]
    is_inet = family in (2, 10) and kind & 0xF in (1, 2) and protocol in (0, 6, 17)
    assert (decide(OPEN, socket, family, kind, protocol) == ALLOW) == (is_inet or family == 1)
    assert (decide(CLOSED, socket, family, kind, protocol) == ALLOW) == is_inet


@pytest.mark.parametrize("family", [1, 2, 10])
@pytest.mark.parametrize("kind", [STREAM, DATAGRAM, RAW, SEQPACKET, STREAM | CLOEXEC])
@pytest.mark.parametrize("protocol", [0, 1, 6, 17, 132, 262])
def test_sockets_in_detail(family: int, kind: int, protocol: int) -> None:
    socket = calls.CONDITIONAL["socket"]
    is_inet = family != 1 and kind & 0xF in (STREAM, DATAGRAM) and protocol in (0, 6, 17)
    assert (decide(CLOSED, socket, family, kind, protocol) == ALLOW) == is_inet
    assert (decide(OPEN, socket, family, kind, protocol) == ALLOW) == (is_inet or family == 1)


def test_pairs_of_sockets() -> None:
    pair = calls.CONDITIONAL["socketpair"]
    assert decide(CLOSED, pair, 1, STREAM | CLOEXEC) == ALLOW
    assert decide(CLOSED, pair, 1, SEQPACKET) == ALLOW
    assert decide(CLOSED, pair, 1, DATAGRAM) == refuse(errno.EACCES)
    assert decide(OPEN, pair, 1, DATAGRAM) == ALLOW
    assert decide(OPEN, pair, 16, STREAM) == refuse(errno.EAFNOSUPPORT)


@pytest.mark.parametrize(
    ("name", "argument", "decision"),
    [
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), refuse(errno.ENOTTY)),
        ("ioctl", (0, 0x5412 | 1 << 32), refuse(errno.ENOTTY)),
        ("prctl", (15,), ALLOW),
        ("prctl", (22,), EPERM),
        ("prctl", (35,), EPERM),
        ("fcntl", (0, 1), ALLOW),
        ("fcntl", (0, 1030), ALLOW),
        ("fcntl", (0, 1024), EPERM),
        ("fcntl", (0, 1026), EPERM),
        ("setsockopt", (0, 1, 2), ALLOW),
        ("setsockopt", (0, 1, 13), EPERM),
        ("setsockopt", (0, 1, 26), EPERM),
        ("setsockopt", (0, 1, 52), EPERM),
        ("setsockopt", (0, 1, 31), ALLOW),
        ("setsockopt", (0, 6, 1), ALLOW),
        ("setsockopt", (0, 6, 13), ALLOW),
        ("setsockopt", (0, 6, 31), EPERM),
        ("setsockopt", (0, 0, 31), ALLOW),
        ("setsockopt", (0, 41, 26), ALLOW),
        ("setsockopt", (0, 282, 1), refuse(errno.ENOPROTOOPT)),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x0400000,), EPERM),
    ],
)
def test_arguments(name: str, argument: tuple[int, ...], decision: int) -> None:
    assert decide(OPEN, calls.CONDITIONAL[name], *argument) == decision


def test_numbers_are_unique_and_packed_as_the_kernel_reads_them() -> None:
    numbers = [*calls.ALLOWED.values(), *calls.CONDITIONAL.values()]
    assert len(numbers) == len(set(numbers))
    assert len(seccomp.pack(OPEN)) == 8 * len(OPEN) <= 8 * 4096


def test_nameless_files_in_memory_can_be_closed_off() -> None:
    without = seccomp.unpack(seccomp.handler_filter(unix_sockets=True, memory_files=False))
    assert decide(OPEN, calls.ALLOWED["memfd_create"]) == ALLOW
    assert decide(without, calls.ALLOWED["memfd_create"]) == refuse(errno.ENOSYS)
    assert decide(without, calls.ALLOWED["memfd_create"] + 1) == decide(OPEN, 320)
