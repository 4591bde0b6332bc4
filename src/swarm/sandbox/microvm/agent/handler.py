"""The handler's process: made before the snapshot, told what to run after each restore."""

from __future__ import annotations

import contextlib
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

from . import compiled, machine

WIRE_DESCRIPTOR = 3
START_DESCRIPTOR = 4
_NODE = "/usr/bin/node"
_NODE_TEMPLATE = "/swarm/agent/node_template.mjs"
_PR_SET_NO_NEW_PRIVS = 38


@dataclass
class Handler:
    """The process, and this end of all that leads to it."""

    pid: int
    pidfd: int
    wire: int
    start: int
    """Leads to what waits for the restore, and back when a call is done."""
    stdout: int
    stderr: int
    _is_done: bool = False

    def begin(self, environment: dict[str, str], *, act: str = "call") -> None:
        """Let it go on, with this environment: ``call``, ``rehearse`` or ``settle``."""
        data = json.dumps({"environment": environment, "act": act}).encode()
        _write_all(self.start, len(data).to_bytes(4, "big") + data)
        os.set_blocking(self.start, False)

    def is_done(self) -> bool:
        """Whether it says that its call is answered and that it rests."""
        if not self._is_done:
            with contextlib.suppress(OSError):
                self._is_done = os.read(self.start, 1) != b""
        return self._is_done

    def finish_rehearsal(self) -> None:
        self._is_done = False
        os.set_blocking(self.start, True)

    def settle(self, environment: dict[str, str]) -> None:
        """After rehearsals: have the memory made its own that the agent and it have shared.

        Args:
            environment: that of the call, as far as it is known.
        """
        machine.own_memory()
        self.begin(environment, act="settle")
        os.set_blocking(self.start, True)
        os.read(self.start, 1)


def load_modules(names: list[str]) -> Any:
    """Load what handlers often use, and the guest; returns its class."""
    _preload(names)
    return _load_guest()


def _preload(names: list[str]) -> None:
    for name in names:
        importlib.import_module(name)


def _load_guest() -> Any:
    sys.path.insert(0, "/swarm")
    try:
        return importlib.import_module("guest.serving").Guest
    finally:
        sys.path.remove("/swarm")


def make_handler(boot: dict[str, Any], guest: Any) -> Handler:
    """Fork the handler's process and wait until it is ready."""
    if boot["runtime"] == "python":
        compiled.use(compiled.compile_package())
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
            _become_handler(boot, ends, guest)
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
    made = Handler(pid, os.pidfd_open(pid), wire.detach(), start.detach(), stdout, stderr)
    for descriptor in (made.wire, stdout, stderr):
        os.set_blocking(descriptor, False)
    return made


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _become_handler(boot: dict[str, Any], ends: list[int], guest_class: Any) -> NoReturn:
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
    for name in [name for name in sys.modules if name.partition(".")[0] == "agent"]:
        del sys.modules[name]  # A package may have a module of that name.
    guest = guest_class(WIRE_DESCRIPTOR)
    os.write(START_DESCRIPTOR, b"r")
    _serve_calls(guest)


def _serve_calls(guest: Any) -> NoReturn:
    """Serve rehearsals, then the call."""
    environment = dict(os.environ)
    while True:
        start = json.loads(_read(int.from_bytes(_read(4), "big")).decode())
        _change_environment(environment, start["environment"])
        environment = start["environment"]
        if start["act"] == "settle":
            gc.collect()
            gc.freeze()
            machine.own_memory()
            os.write(START_DESCRIPTOR, b"d")
            continue
        path, modules = sys.path.copy(), set(sys.modules)
        random.seed()
        guest.serve(rehearses=False)
        os.write(START_DESCRIPTOR, b"d")
        if start["act"] == "call":
            break
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            del sys.modules[name]
    # Cheaper than an exit; nothing more is asked of this process.
    while True:
        signal.pause()


def _change_environment(old: dict[str, str], new: dict[str, str]) -> None:
    """Set and remove only what differs, which after a restore is next to nothing."""
    for name in old:
        if name not in new:
            del os.environ[name]
    for name, value in new.items():
        if old.get(name) != value:
            os.environ[name] = value


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(START_DESCRIPTOR, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


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
