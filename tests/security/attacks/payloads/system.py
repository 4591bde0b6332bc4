"""System calls by number, past every wrapper of the C library and of Python."""

import ctypes
import os
import time

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

NUMBERS = {
    "clone": 56,
    "chroot": 161,
    "ptrace": 101,
    "syslog": 103,
    "capset": 126,
    "pivot_root": 155,
    "prctl": 157,
    "adjtimex": 159,
    "acct": 163,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "reboot": 169,
    "sethostname": 170,
    "ioperm": 173,
    "init_module": 175,
    "quotactl": 179,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "migrate_pages": 256,
    "unshare": 272,
    "move_pages": 279,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "finit_module": 313,
    "seccomp": 317,
    "kexec_file_load": 320,
    "bpf": 321,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "open_tree": 428,
    "fsopen": 430,
    "clone3": 435,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "memfd_secret": 447,
    "shmget": 29,
    "semget": 64,
    "msgget": 68,
    "mq_open": 240,
    "modify_ldt": 154,
    "personality": 135,
    "ioctl": 16,
    "prlimit64": 302,
    "ioprio_set": 251,
    "get_mempolicy": 239,
    "syncfs": 306,
    "statmount": 457,
    "listmount": 458,
}


class Stopped(Exception):
    """An attack that something other than an errno stopped; ``refusal`` names it."""

    def __init__(self, refusal, detail=""):
        super().__init__(detail or refusal)
        self.refusal = refusal


def call(name, *arguments):
    """Make a system call; raises OSError."""
    number = NUMBERS[name] if isinstance(name, str) else name
    wrapped = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    ctypes.set_errno(0)
    result = _libc.syscall(ctypes.c_long(number), *wrapped)
    if result == -1 and ctypes.get_errno():
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def past_permission(errors, name, *arguments):
    """Make a call that cannot do anything; its error tells whether it was let through.

    The kernel checks the right to make it first. ``errors`` are those that come after.
    """
    try:
        return f"{name} returned {call(name, *arguments)}"
    except OSError as error:
        if error.errno in errors:
            return f"{name} was let through: {error}"
        raise


def in_child(function):
    """Run ``function`` in a child: its return value as text, or its OSError raised here.

    A child that is killed raises Stopped with the signal's number.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = f"+{function()}"
        except OSError as error:
            text = f"-{error.errno}"
        except BaseException as error:
            text = f"!{error!r}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    data = b""
    while chunk := os.read(reader, 4096):
        data += chunk
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise Stopped(f"signal-{os.WTERMSIG(status)}")
    text = data.decode()
    if text.startswith("-"):
        raise OSError(int(text[1:]), os.strerror(int(text[1:])))
    if text.startswith("!"):
        raise RuntimeError(text)
    return text[1:]


def wait_until(condition, seconds=2.0):
    """Poll, for lack of anything to wait on; whether the condition became true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False
