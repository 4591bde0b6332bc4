"""The zygote's loop: configure once, then spawn, kill and reap."""

from __future__ import annotations

import array
import base64
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import site
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import building, entering, process, syscalls, template
from .identities import Identities
from .init import Init, InitProgram
from .steps import LayerError

_MESSAGE_LIMIT = 1024 * 1024
_DESCRIPTORS_OF_A_SPAWN = 4


@dataclass
class _Sandbox:
    id: str
    init: Init
    init_pid: int
    """The host's, as ``/proc`` counts."""
    handler: int
    """The handler's pid, as this process counts."""
    uid: int
    is_handler_over: bool = False
    is_killed: bool = False
    """Whether this zygote has told init to go."""


class Zygote:
    def __init__(self, control: socket.socket, configuration: dict[str, Any]) -> None:
        uids = configuration["uids"]
        self._control = control
        self._identities = Identities(**uids) if uids else None
        building.join_cgroups(configuration["cgroup"])
        template.leave_mounts()
        template.build(configuration)
        guest, rehearse_guest = _load_guest(configuration["guest"])
        filters = {name: base64.b64decode(text) for name, text in configuration["filters"].items()}
        self._template = process.Template(
            staging=configuration["staging"],
            inside=configuration["inside"],
            last_capability=_last_capability(),
            landlock=syscalls.landlock_version() if configuration["landlock"] else 0,
            devices=configuration["devices"],
            filters=filters,
            guest=guest,
        )
        _preload(configuration["preload"])
        rehearse_guest()
        self._own_pidfd = os.pidfd_open(os.getpid())
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._inits = InitProgram(
            self._own_pidfd,
            configuration["locks"],
            None if self._identities is None else self._identities.of_inits,
            filters["init"],
        )
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._watched: dict[int, Callable[[], None]] = {}
        self._sandboxes: dict[str, _Sandbox] = {}
        # An init shares this memory: nobody may have a handler of ours run in it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # Neither this memory nor that of an init, which is the same, is to be looked into.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        gc.collect()
        gc.freeze()

    @property
    def host_pid(self) -> int:
        return _host_pid(self._own_pidfd)

    @property
    def landlock(self) -> int:
        return self._template.landlock

    def run(self) -> None:
        """Serve until the host is gone."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._control.fileno():
                    if not self._serve_request():
                        return
                else:
                    self._watched[descriptor]()

    def kill_all(self) -> None:
        """Kill every sandbox and wait until nothing of them is left."""
        for sandbox in self._sandboxes.values():
            os.kill(sandbox.init.pid, signal.SIGKILL)
        for sandbox in self._sandboxes.values():
            if not sandbox.is_handler_over:
                os.waitpid(sandbox.handler, 0)
            os.waitpid(sandbox.init.pid, 0)

    def _serve_request(self) -> bool:
        received = receive(self._control)
        if received is None:
            return False
        message, descriptors = received
        if message["op"] == "spawn" and len(descriptors) == _DESCRIPTORS_OF_A_SPAWN:
            try:
                self._spawn(message, descriptors)
            except OSError as error:
                failure = LayerError("pid-namespace", error.errno or 0, error.strerror or "")
                send(self._control, {**failure.as_json(), "id": message["id"]})
            except LayerError as failure:
                send(self._control, {**failure.as_json(), "id": message["id"]})
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        elif message["op"] == "kill":
            sandbox = self._sandboxes.get(message["id"])
            if sandbox is not None:
                self._kill(sandbox)
        return True

    def _spawn(self, message: dict[str, Any], descriptors: list[int]) -> None:
        uid = os.getuid()
        maps: dict[str, int] = {}
        if self._identities is not None:
            uid = self._identities.take()
        try:
            if self._identities is not None:
                maps = {owner: self._identities.map_of(uid, owner) for owner in message["owners"]}
            init = self._inits.start()
            channel, wire, out, err = descriptors
            job = process.Job(channel, wire, out, err, self._own_pidfd, init.pidfd, uid, maps)
            handler = self._fork_into(init)
        except (OSError, LayerError):
            if self._identities is not None:
                self._identities.give_back(uid)
            raise
        if handler == 0:
            process.run(self._template, job)
        sandbox = _Sandbox(message["id"], init, _host_pid(init.pidfd), handler, uid)
        self._sandboxes[sandbox.id] = sandbox
        pidfd = os.pidfd_open(handler)
        self._watch(pidfd, lambda: self._reap_handler(sandbox, pidfd))
        self._watch(init.pidfd, lambda: self._reap_init(sandbox))
        spawned = {"event": "spawned", "id": sandbox.id, "uid": uid}
        send(self._control, {**spawned, "init": sandbox.init_pid, "handler": _host_pid(pidfd)})

    def _fork_into(self, init: Init) -> int:
        """Fork a process into an init's pid namespace; if that fails, nothing of init is left."""
        handler = -1
        try:
            syscalls.join_namespaces(init.pidfd, syscalls.CLONE_NEWPID)
            handler = os.fork()
        except OSError:
            self._discard(init)
            raise
        finally:
            if handler:
                syscalls.join_namespaces(self._own_pids, syscalls.CLONE_NEWPID)
        return handler

    def _discard(self, init: Init) -> None:
        """Be rid of an init that has no sandbox; raises LayerError if it had ended by itself."""
        has_ended = bool(select.select([init.pidfd], [], [], 0)[0])
        os.kill(init.pid, signal.SIGKILL)
        _, status = os.waitpid(init.pid, 0)
        os.close(init.pidfd)
        if has_ended:
            raise self._inits.failure(status)

    def _watch(self, pidfd: int, reap: Callable[[], None]) -> None:
        self._watched[pidfd] = reap
        self._poll.register(pidfd, select.EPOLLIN)

    def _forget(self, pidfd: int) -> None:
        del self._watched[pidfd]
        self._poll.unregister(pidfd)
        os.close(pidfd)

    def _kill(self, sandbox: _Sandbox) -> None:
        sandbox.is_killed = True
        os.kill(sandbox.init.pid, signal.SIGKILL)

    def _reap_handler(self, sandbox: _Sandbox, pidfd: int) -> None:
        """The handler has ended: with it goes all that it left."""
        self._forget(pidfd)
        _, status, usage = os.wait4(sandbox.handler, 0)
        sandbox.is_handler_over = True
        is_shot = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        is_own_end = not sandbox.is_killed and not (is_shot and _is_dying(sandbox.init_pid))
        send(
            self._control,
            {
                "event": "ended",
                "id": sandbox.id,
                "status": status if is_own_end else None,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
            },
        )
        if not sandbox.is_killed:
            self._kill(sandbox)

    def _reap_init(self, sandbox: _Sandbox) -> None:
        """All is over: the kernel ends init only after everything in its pid namespace."""
        self._forget(sandbox.init.pidfd)
        _, status = os.waitpid(sandbox.init.pid, 0)
        del self._sandboxes[sandbox.id]
        if self._identities is not None:
            self._identities.give_back(sandbox.uid)
        send(self._control, {"event": "exited", "id": sandbox.id, "status": status})


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """One message and its descriptors, or None when the host is gone."""
    space = socket.CMSG_SPACE(_DESCRIPTORS_OF_A_SPAWN * 4)
    try:
        data, ancillary, _, _ = control.recvmsg(_MESSAGE_LIMIT, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if not data:
        return None
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) - len(payload) % 4])
    message: dict[str, Any] = json.loads(data)
    return message, list(descriptors)


def send(control: socket.socket, message: dict[str, object]) -> None:
    """Tell the host; that it is gone is learnt by the next receive."""
    with contextlib.suppress(ConnectionError):
        control.send(json.dumps(message).encode())


def main(arguments: list[str]) -> None:
    """Run the program: its folder, the descriptor of the control socket, an ordinary user's ids."""
    folder, descriptor, *user = arguments
    control = socket.socket(fileno=int(descriptor))
    try:
        if user:
            command = [sys.executable, "-I", "-S", folder, descriptor]
            entering.enter(user[0], command)
        serve(control)
    except LayerError as failure:
        send(control, failure.as_json())
    except OSError:
        send(control, LayerError("zygote", 0, traceback.format_exc()).as_json())


def serve(control: socket.socket) -> None:
    """Be configured, then serve until the host is gone."""
    control.set_inheritable(False)
    for add in (site.setquit, site.setcopyright, site.sethelper):
        add()
    sys.dont_write_bytecode = True
    received = receive(control)
    if received is None:
        return
    zygote = Zygote(control, received[0])
    send(control, {"event": "configured", "landlock": zygote.landlock, "pid": zygote.host_pid})
    try:
        zygote.run()
    finally:
        zygote.kill_all()


def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def _host_pid(pidfd: int) -> int:
    """The pid as the host counts; it is the host's ``/proc`` that says it."""
    found = _read(f"/proc/self/fdinfo/{pidfd}").partition(b"\nPid:")[2]
    return int(found.split(maxsplit=1)[0])


def _is_dying(pid: int) -> bool:
    """Whether a process, by the host's pid, is on its way out (``PF_EXITING``, ``proc(5)``)."""
    flags = int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[6])
    return bool(flags & 0x4)


def _read(path: str) -> bytes:
    """A short file of the kernel's, with the least work: what is touched here is copied."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _preload(names: list[str]) -> None:
    """Import what handlers often use, once for all of them."""
    for name in names:
        importlib.import_module(name)


def _load_guest(folder: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """The guest's ``main`` and its rehearsal; like the zygote, it is a package of its own."""
    sys.path.insert(0, folder)
    try:
        main: Callable[[], None] = importlib.import_module("guest.serving").main
        rehearse: Callable[[], None] = importlib.import_module("guest.rehearsal").rehearse
        return main, rehearse
    finally:
        del sys.path[0]
