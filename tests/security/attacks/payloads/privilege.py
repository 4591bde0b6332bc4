"""Attacks on privilege: more rights, higher limits, better treatment."""

import contextlib
import ctypes
import fcntl
import os
import resource
import struct
import subprocess
import termios

from system import Stopped, call, wait_until

_SET_UID_PROGRAMS = ("/usr/bin/su", "/usr/bin/passwd", "/usr/bin/mount", "/usr/bin/chfn")


def _effective_user(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(line for line in file if line.startswith("Uid:")).split()[2]


def set_uid_program(targets):
    """Run a program that belongs to root and is set-uid, and look at whom it runs as."""
    program = next(path for path in _SET_UID_PROGRAMS if os.path.exists(path))
    if not os.stat(program).st_mode & 0o4000:
        raise RuntimeError(f"{program} is not set-uid")
    # As root, by way of another user: root gains nothing by it.
    becoming = {"user": 65534} if os.geteuid() == 0 else {}
    # It asks for a password, or for nothing, on a pipe that stays open; that is time enough.
    child = subprocess.Popen(
        [program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **becoming,
    )
    own = str(becoming.get("user", os.geteuid()))
    try:
        wait_until(lambda: os.readlink(f"/proc/{child.pid}/exe") == os.path.realpath(program), 0.5)
        user = _effective_user(child.pid)
    except OSError:
        user = own
    finally:
        child.kill()
        child.wait()
    if user == own:
        raise Stopped("unmoved", f"{program} runs as {user}")
    return f"{program} runs as {user}"


def become_root(targets):
    if os.geteuid() != 0:
        os.setresuid(0, 0, 0)
    return f"is user {os.geteuid()}"


def join_root_group(targets):
    os.setgroups([0])
    return f"groups {os.getgroups()}"


def other_user(targets):
    os.setresuid(65534, 65534, 65534)
    return "became another user"


def raise_capabilities(targets):
    header = struct.pack("Ii", 0x20080522, 0)
    call("capset", header, struct.pack("6I", *[1 << 21, 1 << 21, 0] * 2))
    return "raised a capability"


def hold_capabilities(targets):
    with open("/proc/self/status") as file:
        held = {line.split()[0]: int(line.split()[1], 16) for line in file if line[:3] == "Cap"}
    if not any(held.values()):
        raise Stopped("nothing", "every set is empty")
    return held


def keep_privilege_gain(targets):
    """Whether programs that it executes could gain anything."""
    if ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) == 1:
        raise Stopped("nothing", "no_new_privs is set")
    return "no_new_privs is not set"


def give_away(targets):
    """Make a file root's, then set-uid."""
    with open("/tmp/given", "w"):
        pass
    os.chown("/tmp/given", 65534, 65534)
    return "gave a file to another user"


def raise_limit(targets):
    old, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    _set_limit(resource.RLIMIT_NOFILE, old + 1)
    return f"raised its limit from {old} files"


def core_dump(targets):
    """Dump core, which the host's pattern may feed to a program of the host."""
    _set_limit(resource.RLIMIT_CORE, 4096)
    return "may dump core"


def _set_limit(kind, value):
    call("prlimit64", 0, kind, struct.pack("QQ", value, value), None)


def nice(targets):
    return f"nice {os.nice(-5)}"


def real_time(targets):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return "ran before everyone else"


def real_time_by_limit(targets):
    """By the limit that a user may have been given, as for music."""
    return real_time(targets)


def nice_by_limit(targets):
    """The same for priority."""
    return nice(targets)


def deadline(targets):
    attributes = struct.pack("IIQiIQQQ", 48, 6, 0, 0, 0, 10**7, 10**8, 10**8)
    call(314, 0, attributes, 0)
    return "ran by deadline"


def disk_priority(targets):
    call("ioprio_set", 1, 0, 1 << 13)
    return "reads and writes before everyone else"


def lock_memory(targets):
    library = ctypes.CDLL(None, use_errno=True)
    size = 1 << 20
    buffer = ctypes.create_string_buffer(size)
    if library.mlock(buffer, ctypes.c_size_t(size)) == -1:
        raise OSError(ctypes.get_errno(), "mlock")
    return "locked a mebibyte in memory"


def _terminals():
    yield from (0, 1, 2)
    with contextlib.suppress(OSError):
        yield os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def terminal_input(targets):
    """Type for the user (TIOCSTI)."""
    failure = Stopped("ENOTTY", "there is no terminal")
    for descriptor in _terminals():
        try:
            fcntl.ioctl(descriptor, termios.TIOCSTI, b"x")
        except OSError as error:
            failure = error
        else:
            return "typed a key"
    raise failure
