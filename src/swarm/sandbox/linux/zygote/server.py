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

from . import building, process, syscalls, template
from .identities import Identities
from .steps import LayerError

_MESSAGE_LIMIT = 1024 * 1024
_DESCRIPTORS_OF_A_SPAWN = 4


@dataclass
class _Child:
    id: str
    pid: int
    uid: int


class Zygote:
    def __init__(self, control: socket.socket, configuration: dict[str, Any]) -> None:
        user = configuration["user"]
        self._control = control
        self._locks: list[int] = configuration["locks"]
        self._identities = None if user else Identities(**configuration["uids"])
        building.join_cgroups(configuration["cgroup"])
        template.enter_namespaces(user)
        template.build(configuration)
        self._template = process.Template(
            staging=configuration["staging"],
            inside=configuration["inside"],
            last_capability=_last_capability(),
            landlock=syscalls.landlock_version() if configuration["landlock"] else 0,
            devices=configuration["devices"],
            filters={
                name: base64.b64decode(text) for name, text in configuration["filters"].items()
            },
            guest=_load_guest(configuration["guest"]),
        )
        _preload(configuration["preload"])
        self._own_pidfd = os.pidfd_open(os.getpid())
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._children: dict[int, _Child] = {}
        self._by_id: dict[str, _Child] = {}
        gc.collect()
        gc.freeze()

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
                    self._reap(descriptor)

    def kill_all(self) -> None:
        for child in self._children.values():
            os.kill(child.pid, signal.SIGKILL)
        for child in self._children.values():
            os.waitpid(child.pid, 0)

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
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        elif message["op"] == "kill":
            child = self._by_id.get(message["id"])
            if child is not None:
                os.kill(child.pid, signal.SIGKILL)
        return True

    def _spawn(self, message: dict[str, Any], descriptors: list[int]) -> None:
        uid = self._template.inside
        maps: dict[str, int] = {}
        if self._identities is not None:
            uid = self._identities.take()
        try:
            if self._identities is not None:
                maps = {owner: self._identities.map_of(uid, owner) for owner in message["owners"]}
            channel, wire, out, err = descriptors
            job = process.Job(channel, wire, out, err, self._own_pidfd, self._locks, uid, maps)
            pid = syscalls.clone(syscalls.CLONE_NEWPID)
        except OSError:
            if self._identities is not None:
                self._identities.give_back(uid)
            raise
        if pid == 0:
            process.run(self._template, job)
        child = _Child(message["id"], pid, uid)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = child
        self._by_id[child.id] = child
        self._poll.register(pidfd, select.EPOLLIN)
        send(self._control, {"event": "spawned", "id": child.id, "pid": pid, "uid": uid})

    def _reap(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        del self._by_id[child.id]
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(child.pid, 0)
        if self._identities is not None:
            self._identities.give_back(child.uid)
        send(
            self._control,
            {
                "event": "exited",
                "id": child.id,
                "status": status,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
            },
        )


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


def main(descriptor: int) -> None:
    control = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    for add in (site.setquit, site.setcopyright, site.sethelper):
        add()
    sys.dont_write_bytecode = True
    received = receive(control)
    if received is None:
        return
    try:
        zygote = Zygote(control, received[0])
    except LayerError as failure:
        send(control, failure.as_json())
        return
    except OSError:
        send(control, LayerError("zygote", 0, traceback.format_exc()).as_json())
        return
    send(control, {"event": "configured", "landlock": zygote.landlock, "pid": os.getpid()})
    try:
        zygote.run()
    finally:
        zygote.kill_all()


def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def _preload(names: list[str]) -> None:
    """Import what handlers often use, once for all of them."""
    for name in names:
        importlib.import_module(name)


def _load_guest(folder: str) -> Callable[[], None]:
    """The guest's ``main``; like the zygote itself, it is imported as a package of its own."""
    sys.path.insert(0, folder)
    try:
        main: Callable[[], None] = importlib.import_module("guest.serving").main
        return main
    finally:
        del sys.path[0]
