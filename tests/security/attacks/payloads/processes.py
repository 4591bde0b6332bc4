"""Attacks on processes: the host's, the sandbox's init, and the running program itself."""

import contextlib
import ctypes
import errno
import mmap
import os
import signal
import struct

from system import Stopped, call, in_child, wait_until

_PTRACE_TRACEME = 0
_PTRACE_SEIZE = 0x4206
_MARK = b"swarm-decoy"


def init():
    """The sandbox's init, which without a pid namespace is not the first process."""
    return int(os.environ.get("PID_OF_INIT", "1"))


def _decoys():
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                if _MARK in file.read() and int(name) != os.getpid():
                    yield int(name)


def _decoy():
    for pid in _decoys():
        return pid
    raise ProcessLookupError(errno.ESRCH, "no process of the host is to be seen")


def see_host(targets):
    return f"saw process {_decoy()} of the host"


def host_environment(targets):
    with open(f"/proc/{_decoy()}/environ", "rb") as file:
        text = file.read()
    return text if b"the-hosts-secret" in text else None


def host_memory(targets):
    with open(f"/proc/{_decoy()}/mem", "rb", buffering=0) as file:
        return f"opened the memory of a process of the host as {file.fileno()}"


def host_root(targets):
    with open(f"/proc/{_decoy()}/root{targets['secret']}") as file:
        return file.read()


def signal_host(targets):
    os.kill(_decoy(), signal.SIGUSR1)
    return "signalled a process of the host"


def signal_host_blindly(targets):
    """By every pid that the host might have, seen or not. 0 only asks."""
    for pid in [*targets["pids"], *range(2, 300)]:
        if pid in (os.getpid(), init()):
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, 0)
            return f"could have signalled {pid}"
    raise ProcessLookupError(errno.ESRCH, "no process answered")


def signal_init(targets):
    """Stop init, whose end would be noticed by the host."""
    pid = init()
    os.kill(pid, signal.SIGSTOP)

    def state():
        with open(f"/proc/{pid}/status") as file:
            return next(line.split()[1] for line in file if line.startswith("State:"))

    try:
        # What a signal wakes is running from then on, until it heeds the signal. So one that sleeps
        # was not sent any.
        wait_until(lambda: state() in "TS", 60)
        if state() != "T":
            raise Stopped("unmoved", "init does not heed signals from inside")
        return "stopped init"
    finally:
        os.kill(pid, signal.SIGCONT)


def trace_host(targets):
    call("ptrace", _PTRACE_SEIZE, _decoy(), 0, 0)
    return "traced a process of the host"


def trace_init(targets):
    call("ptrace", _PTRACE_SEIZE, init(), 0, 0)
    return "traced init"


def trace_child(targets):
    """Tracing at all: the tracer may change its child's system calls after they were checked."""
    return in_child(lambda: call("ptrace", _PTRACE_TRACEME, 0, 0, 0) or "is traced")


def init_memory(targets):
    with open(f"/proc/{init()}/mem", "rb", buffering=0) as file:
        return f"opened init's memory as {file.fileno()}"


def init_descriptors(targets):
    """What init keeps for the host: its locks; at first, all that the zygote has."""
    folder = f"/proc/{init()}/fd"
    return [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]


def init_environment(targets):
    with open(f"/proc/{init()}/environ", "rb") as file:
        return file.read(100)


def _vector(buffer):
    return struct.pack("QQ", ctypes.addressof(buffer), ctypes.sizeof(buffer))


def read_memory(targets):
    """Of a process that may be read: a child. The call itself is what must be closed."""
    buffer = ctypes.create_string_buffer(b"x", 16)
    vector = _vector(buffer)
    return call("process_vm_readv", os.getpid(), vector, 1, vector, 1, 0)


def write_memory(targets):
    buffer = ctypes.create_string_buffer(b"x", 16)
    vector = _vector(buffer)
    return call("process_vm_writev", os.getpid(), vector, 1, vector, 1, 0)


def steal_descriptor(targets):
    return call("pidfd_getfd", os.pidfd_open(os.getpid()), 0, 0)


def steal_from_init(targets):
    pidfd = os.pidfd_open(init())
    for number in range(64):
        try:
            return call("pidfd_getfd", pidfd, number, 0)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
    return None


def compare(targets):
    """Learn about the kernel's addresses."""
    call("kcmp", os.getpid(), os.getpid(), 1, 0, 0)
    return "compared resources of processes"


def rewrite_interpreter(targets):
    descriptor = os.open(targets["program"], os.O_WRONLY)
    os.close(descriptor)
    return f"opened {targets['program']} for writing"


def replace_own_program(targets):
    """PR_SET_MM tells the kernel that the process runs another file."""
    size = ctypes.c_uint(0)
    call("prctl", 35, 15, ctypes.byref(size), 0, 0)
    return f"may set its memory map ({size.value} bytes)"


def advise_by_pidfd(targets):
    """Advice about the memory of processes, by pidfd."""
    pidfd = os.pidfd_open(os.getpid())
    buffer = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    cold = 20
    return call("process_madvise", pidfd, struct.pack("QQ", address, 4096), 1, cold, 0)
