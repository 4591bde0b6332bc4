"""The handler's process: made before the snapshot, told what to run after each restore."""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import resource
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn

from . import machine

WIRE_DESCRIPTOR = 3
START_DESCRIPTOR = 4
_NODE = "/usr/bin/node"
_NODE_TEMPLATE = "/swarm/agent/node_template.mjs"
_PR_SET_NO_NEW_PRIVS = 38


@dataclass
class Handler:
    """The process, and this end of all that leads to it."""

    pid: int
    wire: socket.socket
    start: socket.socket
    stdout: int
    stderr: int

    def begin(self, environment: dict[str, str]) -> None:
        """Let it go on, with this environment."""
        self.start.sendall(json.dumps({"environment": environment}).encode() + b"\n")
        self.start.close()


def make_handler(boot: dict[str, Any]) -> Handler:
    """Fork the handler's process and wait until it is ready."""
    _preload(boot["preload"])
    guest_main = _load_guest()
    gc.collect()
    gc.freeze()
    wire, guest_wire = socket.socketpair()
    start, guest_start = socket.socketpair()
    stdout, guest_stdout = os.pipe()
    stderr, guest_stderr = os.pipe()
    pid = os.fork()
    if pid == 0:
        ends = [guest_wire.fileno(), guest_start.fileno(), guest_stdout, guest_stderr]
        try:
            _become_handler(boot, ends, guest_main)
        except BaseException:  # noqa: BLE001  nothing may go on as the agent
            traceback.print_exc()
        os._exit(1)
    for end in (guest_wire, guest_start):
        end.close()
    os.close(guest_stdout)
    os.close(guest_stderr)
    if start.recv(1) != b"r":
        text = os.read(stderr, 65536).decode("utf-8", "replace")
        raise RuntimeError(f"the handler's process did not become ready: {text}")
    for descriptor in (wire.fileno(), stdout, stderr):
        os.set_blocking(descriptor, False)
    return Handler(pid, wire, start, stdout, stderr)


def _preload(names: list[str]) -> None:
    for name in names:
        importlib.import_module(name)


def _load_guest() -> Any:
    sys.path.insert(0, "/swarm")
    try:
        return importlib.import_module("guest.serving").main
    finally:
        sys.path.remove("/swarm")


def _become_handler(boot: dict[str, Any], ends: list[int], guest_main: Any) -> NoReturn:
    machine.write("/proc/self/oom_score_adj", "0")
    machine.write(f"{machine.GROUP}/cgroup.procs", "0")
    os.setsid()
    _place(ends)
    for name, value in boot["resource_limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    os.setgroups([])
    os.setresgid(*[machine.AGENT_ID] * 3)
    os.setresuid(*[machine.AGENT_ID] * 3)
    machine._libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.umask(0o022)
    os.chdir("/package")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if boot["runtime"] == "node":
        variables = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", **boot["environment"]}
        os.execve(_NODE, [_NODE, *boot["node_options"], _NODE_TEMPLATE], variables)
    os.write(START_DESCRIPTOR, b"r")
    with open(START_DESCRIPTOR, encoding="utf-8") as file:
        line = file.readline()
    if not line:
        os._exit(0)
    for name in [name for name in sys.modules if name.partition(".")[0] == "agent"]:
        del sys.modules[name]  # A package may have a module of that name.
    os.environ.clear()
    os.environ.update(json.loads(line)["environment"])
    random.seed()
    guest_main()
    os._exit(0)


def _place(ends: list[int]) -> None:
    """Put the ends where the handler expects them; close everything else."""
    null = os.open("/dev/null", os.O_RDONLY)
    high = [os.dup2(end, 100 + index, inheritable=False) for index, end in enumerate(ends)]
    os.dup2(null, 0)
    targets = (WIRE_DESCRIPTOR, START_DESCRIPTOR, 1, 2)
    for source, target in zip(high, targets, strict=True):
        os.dup2(source, target, inheritable=True)
    os.closerange(5, 4096)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115


def end_all() -> None:
    """Kill what is left in the handler's group and reap everything."""
    machine.write(f"{machine.GROUP}/cgroup.kill", "1")
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
