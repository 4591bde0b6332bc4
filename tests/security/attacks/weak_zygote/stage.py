"""A throw-away host in namespaces of its own: what a weakened sandbox reaches instead of this one.

It has its own processes, network (with addresses of a metadata service, a name server, a private
and a public host on its loopback), host name, IPC and mounts. When the zygote ends, which is its
first process, the kernel ends all that is in it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from . import decoys

HOST_NAME = "the-staged-host"
ADDRESSES = [
    ("169.254.169.254", 80),
    ("10.0.0.1", 80),
    ("203.0.113.10", 443),
    ("203.0.113.10", 5000),
    ("9.9.9.9", 53),
    ("2001:db8::10", 443),
]
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


def enter(plan: dict[str, Any], control: socket.socket) -> None:
    """Go on as the first process of the stage; the caller's process waits for its end."""
    if os.getuid() != 0:
        uid, gid = os.getuid(), os.getgid()
        _check(_libc.unshare(_NEWUSER), "unshare")
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _check(_libc.unshare(_NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET), "unshare")
    alive, ours = os.pipe()
    child = os.fork()
    if child:
        control.close()
        os.close(alive)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0x7F)
    os.close(ours)
    _libc.prctl(1, signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)
    os.close(alive)
    _furnish(plan)


def _furnish(plan: dict[str, Any]) -> None:
    _check(_libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None), "mount /")
    _check(_libc.mount(b"proc", b"/proc", b"proc", 0, None), "mount /proc")
    # A part of /usr that may be written to without harm.
    usr = os.fsencode(plan["usr"])
    _check(_libc.mount(b"stage", usr, b"tmpfs", 0, b"mode=0777"), "mount in /usr")
    program = f"{plan['usr']}/program"
    with open(program, "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod(program, 0o777)
    socket.sethostname(HOST_NAME)
    os.environ["DECOY_OF_THE_HOST"] = decoys.SECRET
    _raise_loopback()
    # Kept open by the zygote alone: a terminal of the host's.
    pair = os.openpty()
    for descriptor in pair:
        os.set_inheritable(descriptor, True)
    plan["terminal"] = os.ttyname(pair[1])
    # An executed program has no capabilities as an ordinary user: let it serve where it must.
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w") as file:
        file.write("0")
    server = os.fork()
    if server == 0:
        name = plan["name"]
        decoy = f"import sys; sys.path.insert(0, {plan['suite']!r}); " + (
            f"from weak_zygote import decoys; decoys.serve({plan['folder']!r}, {ADDRESSES!r}, "
            f"{name!r})  # swarm-decoy"
        )
        os.execve(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", decoy],
            {"SECRET": decoys.SECRET},
        )
    end = time.monotonic() + 60
    while not os.path.exists(f"{plan['folder']}/{plan['name']}.json"):
        if time.monotonic() > end or os.waitpid(server, os.WNOHANG)[0]:
            raise OSError(110, "the decoys did not start")
        time.sleep(0.005)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x8 | 0x40))
        hosts = sorted({host for host, _ in ADDRESSES if ":" not in host})
        for index, host in enumerate(hosts, 1):
            address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(host))
            fcntl.ioctl(control, 0x8916, struct.pack("16s16s8x", b"lo:%d" % index, address))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        for host in {host for host, _ in ADDRESSES if ":" in host}:
            request = struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, host), 128, 1)
            fcntl.ioctl(control, 0x8916, request)


def _check(result: int, what: str) -> None:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
