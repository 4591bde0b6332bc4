"""Attacks on resources. Each is bounded, so that its control does no harm."""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import sys
import threading
import time

from system import Stopped, call, wait_until

_MEBIBYTE = 1 << 20


def _sleep_for_ever():
    while True:
        signal.pause()


def forks(targets):
    """Children until refused, or the number asked for."""
    made = []
    try:
        for _ in range(targets["count"]):
            child = os.fork()
            if child == 0:
                _sleep_for_ever()
            made.append(child)
    except BlockingIOError as error:
        raise OSError(error.errno, f"{error.strerror} after {len(made)} children") from None
    finally:
        for child in made:
            os.kill(child, signal.SIGKILL)
    return f"{len(made)} children"


def threads(targets):
    stop = threading.Event()
    made = 0
    try:
        for _ in range(targets["count"]):
            threading.Thread(target=stop.wait, daemon=True).start()
            made += 1
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"{error} after {made} threads") from None
    finally:
        stop.set()
    return f"{made} threads"


def fork_bomb(targets):
    """Every process forks; what counts is that the sandbox can still be ended."""
    _name_process(targets["mark"])
    end = time.monotonic() + targets["seconds"]
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            os.fork()
    _sleep_for_ever()


def memory(targets):
    data = bytearray(targets["megabytes"] * _MEBIBYTE)
    for position in range(0, len(data), 4096):
        data[position] = 1
    return f"{len(data)} bytes"


def memory_by_children(targets):
    """Little for each process, too much for all."""
    each, readers = targets["megabytes_each"], []
    for _ in range(targets["count"]):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            data = bytearray(b"x") * (each * _MEBIBYTE)
            os.write(writer, b"+")
            _sleep_for_ever()
            del data
        os.close(writer)
        readers.append(reader)
    held = sum(os.read(reader, 1) == b"+" for reader in readers)
    # A host that looks a few times a second must get the time for it.
    time.sleep(targets.get("hold_seconds", 0))
    if held < targets["count"]:
        raise Stopped("oom", f"{held} children live")
    return f"{held} children with {each} MiB each"


def memory_in_files(targets):
    """Memory that no process maps."""
    chunk = b"x" * _MEBIBYTE
    kept = []
    for _ in range(targets["megabytes"] // 32):
        descriptor = os.memfd_create("attack")
        kept.append(descriptor)
        for _ in range(32):
            os.write(descriptor, chunk)
    time.sleep(targets.get("hold_seconds", 0))
    return f"{len(kept) * 32} MiB in nameless files"


def _fill(folder, megabytes):
    chunk = b"x" * _MEBIBYTE
    with open(f"{folder}/fill", "wb", buffering=0) as file:
        for _ in range(megabytes):
            if file.write(chunk) < len(chunk):
                raise OSError(errno.ENOSPC, "a short write")
    return f"{megabytes} MiB"


def disk(targets):
    return _fill("/tmp", targets["megabytes"])


def output_disk(targets):
    return _fill("/outputs", targets["megabytes"])


def one_large_file(targets):
    """A file that is large and takes no room; copying it would."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("/outputs/sparse", "wb") as file:
        file.truncate(targets["bytes"])
    return f"{os.stat('/outputs/sparse').st_size} bytes"


def _files(folder, count):
    for number in range(count):
        os.close(os.open(f"{folder}/{number}", os.O_CREAT | os.O_WRONLY))
    return f"{count} files"


def inodes(targets):
    return _files("/tmp", targets["count"])


def output_inodes(targets):
    return _files("/outputs", targets["count"])


def descriptors(targets):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = [os.open("/dev/null", os.O_RDONLY) for _ in range(targets["count"])]
    return f"{len(made)} descriptors"


def log(targets):
    line = "x" * 1000
    for _ in range(targets["lines"]):
        print(line)
    sys.stdout.flush()
    return f"{targets['lines']} lines"


def log_line(targets):
    """One line without end."""
    for _ in range(targets["megabytes"]):
        sys.stdout.write("x" * _MEBIBYTE)
    sys.stdout.flush()
    return f"{targets['megabytes']} MiB"


def spin(targets):
    end = time.monotonic() + targets["seconds"]
    while time.monotonic() < end:
        pass
    return "spun"


def spin_in_children(targets):
    _name_process(targets["mark"])
    for _ in range(8):
        if os.fork() == 0:
            while True:
                pass
    return spin(targets)


def _deaf():
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)


def _name_process(name):
    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)


def daemon(targets):
    """A double fork that ignores every signal it can, in a session of its own."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _deaf()
            _name_process(targets["mark"])
            os.closerange(0, writer)
            os.write(writer, b"+")
            os.close(writer)
            _sleep_for_ever()
        os._exit(0)
    return os.read(reader, 1) and "left a daemon"


def many_daemons(targets):
    for _ in range(20):
        daemon(targets)
    return "left twenty daemons"


def unkillable_wait(targets):
    """A parent in the uninterruptible wait of vfork, for a child that stays."""
    child = os.fork()
    if child == 0:
        _deaf()
        _name_process(targets["mark"])
        # vfork suspends this process until the child ends or executes, and it does neither. The
        # child runs on the parent's memory; pause is called without touching it.
        library = ctypes.PyDLL(None)
        if library.syscall(58) == 0:
            library.pause()

    def is_waiting():
        with open(f"/proc/{child}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "D"

    return wait_until(is_waiting, 60) and "left a process in a wait"


def ignore_the_end(targets):
    """A handler that does not want to end, nor does its child."""
    _deaf()
    _name_process(targets["mark"])
    os.fork()
    _sleep_for_ever()


def sibling(targets):
    """A process whose parent is the handler's own, outside: only that can take note of its end."""
    same_parent = 0x8000
    told, tell = os.pipe()
    if call("clone", same_parent | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        _name_process(targets["mark"])
        os.write(tell, b".")
        _sleep_for_ever()
    os.read(told, 1)
    return "left a process to the handler's parent"
