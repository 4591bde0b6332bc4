"""Attacks on secrecy: what an invocation can learn of the host, and of other invocations."""

import contextlib
import ctypes
import errno
import os
import random
import socket

from system import Stopped


def environment(targets):
    return [value for value in os.environ.values() if "the-hosts-secret" in value]


def first_environment(targets):
    """As the kernel keeps it from the program's start."""
    with open("/proc/self/environ", "rb") as file:
        data = file.read()
    return data if b"the-hosts-secret" in data else None


def descriptors(targets):
    found = []
    for number in range(4, 300):
        with contextlib.suppress(OSError):
            found.append(f"{number}: {os.readlink(f'/proc/self/fd/{number}')}")
    return found


def host_name(targets):
    if socket.gethostname() == targets["host_name"]:
        return socket.gethostname()
    raise Stopped("nothing", socket.gethostname())


def rename_host(targets):
    socket.sethostname("attacked")
    return socket.gethostname()


def other_files(targets):
    """What an earlier invocation left."""
    found = [path for path in ("/tmp/left", "/outputs/left") if os.path.exists(path)]
    for path in ("/tmp/left", "/outputs/left"):
        with open(path, "w") as file:
            file.write("left")
    return found


def random_state(targets):
    """Two invocations that draw the same numbers can foretell each other."""
    return random.getrandbits(64)


def _start_of(path):
    with open(path, "rb", buffering=0) as file:
        return file.read(64)


def _content(path):
    data = _start_of(path)
    if not data:
        raise Stopped("nothing", f"{path} is empty")
    return f"{path}: {data[:40]}"


def interrupts(targets):
    return _content("/proc/interrupts")


def kernel_symbols(targets):
    return _content("/proc/kallsyms")


def timers(targets):
    return _content("/proc/timer_list")


def kernel_configuration(targets):
    return _content("/proc/config.gz")


def boot_options(targets):
    """How the kernel was started, which may hold what only the operator should know."""
    return _content("/proc/cmdline")


def modules(targets):
    return _content("/proc/modules")


def partitions(targets):
    return _content("/proc/partitions")


def buses(targets):
    found = os.listdir("/proc/bus")
    if not found:
        raise Stopped("nothing", "/proc/bus is empty")
    return found


def kernel_memory(targets):
    with open("/proc/kcore", "rb", buffering=0) as file:
        return len(file.read(4)) and "opened the kernel's memory"


def machine_id(targets):
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(FileNotFoundError), open(path) as file:
            return file.read()
    raise FileNotFoundError(errno.ENOENT, "there is no machine id")


def control_group(targets):
    """Where on the host it runs."""
    with open("/proc/self/cgroup") as file:
        paths = [line.strip().split(":", 2)[2] for line in file]
    found = {path for path in paths if path != "/"}
    if not found:
        raise Stopped("nothing", "every path is /")
    return found


def address_of_library(targets):
    return ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value


def watch_files(targets):
    """Who opens which file of a folder that others use too."""
    library = ctypes.CDLL(None, use_errno=True)
    for folder in (b"/package", b"/usr"):
        watcher = library.inotify_init()
        if watcher < 0 or library.inotify_add_watch(watcher, folder, 0x20) < 0:
            raise OSError(ctypes.get_errno(), "inotify")
    os.listdir("/usr")
    return f"was told of {len(os.read(watcher, 4096))} bytes"
