"""The agent's life: boot, wait in the snapshot, serve one invocation."""

from __future__ import annotations

import json
import os
import selectors
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from . import handler as handlers
from . import machine
from .frames import CONNECTION, CONTROL, STDERR, STDOUT, WIRE
from .handler import Handler
from .outputs import send_outputs
from .port import HostGone, Port, open_port
from .proxying import Proxying

_CHUNK = 64 * 1024


def main() -> None:
    """Serve one invocation; returns when the host has all of it."""
    machine.set_clock(machine.BOOT_TIME)
    machine.mount_system()
    machine.write("/proc/self/oom_score_adj", "-1000")
    port = open_port()
    boot = port.wait_control()
    machine.make_group(boot)
    machine.mount_work(boot)
    if boot["runtime"] == "python":
        machine.prepare_package()
    handler = handlers.make_handler(boot)
    invocation = Invocation(port, handler, boot)
    machine.clear_free_memory()
    port.send_control(event="ready")
    # The snapshot is taken here; what follows is paid for by each invocation.
    start = _wait_restored(port)
    machine.set_clock(start["time"])
    machine.reseed(bytes.fromhex(start["seed"]))
    if start["inputs"]:
        machine.mount_inputs()
    handler.begin(start["environment"])
    port.send_control(event="started")
    invocation.serve()


def _wait_restored(port: Port) -> dict[str, Any]:
    """The first message after a restore."""
    try:
        return port.wait_control()
    except HostGone:
        port.reopen()
        return port.wait_control()


class Invocation:
    """Carries bytes between the handler and the host until the handler ends."""

    def __init__(self, port: Port, handler: Handler, boot: dict[str, Any]) -> None:
        self._port = port
        self._handler = handler
        self._boot = boot
        self._to_handler = bytearray()
        self._is_ended = False
        self._selector = selectors.DefaultSelector()
        self._proxying: Proxying | None = None
        if boot["proxy_port"]:
            self._proxying = Proxying(port, self._selector, boot["proxy_port"])
        self._sources: dict[int, int] = {
            handler.wire.fileno(): WIRE,
            handler.stdout: STDOUT,
            handler.stderr: STDERR,
        }
        for source in self._sources:
            self._selector.register(source, selectors.EVENT_READ, partial(self._forward, source))
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(reader, selectors.EVENT_READ, partial(self._reap, reader))
        self._pidfd = os.pidfd_open(handler.pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ, self._end)

    def serve(self) -> None:
        """Serve until the handler ends and the host has what it left."""
        descriptor = self._port.descriptor
        self._selector.register(descriptor, selectors.EVENT_READ, self._take_frames)
        while self._serve_ready():
            if self._port.is_busy:
                self._port.drain()

    def _serve_ready(self) -> bool:
        """Wait for something to do and do it; False when the handler has ended."""
        port = self._port
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.has_output else 0)
        self._selector.modify(port.descriptor, events, self._take_frames)
        for key, ready in self._selector.select():
            if key.fd == port.descriptor and ready & selectors.EVENT_WRITE:
                port.flush()
            # By number: one that was closed meanwhile cannot be looked up by itself.
            known = self._selector.get_map().get(key.fd)
            is_known = known is not None and known.fileobj is key.fileobj
            if is_known and (ready & selectors.EVENT_READ or key.fd != port.descriptor):
                act: Callable[[], None] = key.data
                act()
            if self._is_ended:
                return False
        return True

    def _forward(self, source: int) -> None:
        """One chunk from the handler to the host."""
        if source == self._handler.wire.fileno() and self._to_handler:
            self._feed()
        try:
            data = os.read(source, _CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            self._port.send(self._sources[source], data)
        else:
            self._selector.unregister(source)
            del self._sources[source]
            if source == self._handler.wire.fileno():
                self._port.send_control(event="wire_closed")

    def _take_frames(self) -> None:
        for kind, data in self._port.receive():
            if kind == WIRE:
                self._to_handler += data
                self._feed()
            elif kind == CONNECTION and self._proxying is not None:
                self._proxying.take(data)
            elif kind == CONTROL:
                self._take_control(json.loads(data))

    def _take_control(self, message: dict[str, Any]) -> None:
        operation = message["op"]
        if operation == "end":
            self._end()
        elif self._proxying is not None and operation == "close":
            self._proxying.end(message["number"])
        elif self._proxying is not None and operation == "credit":
            self._proxying.credit(message["number"], message["size"])

    def _reap(self, reader: int) -> None:
        """Reap orphans, which would count as processes of the handler's; never the handler."""
        os.read(reader, _CHUNK)
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None or found.si_pid == self._handler.pid:
                return
            os.waitpid(found.si_pid, 0)

    def _feed(self) -> None:
        """Bytes of the host for the handler's wire."""
        wire = self._handler.wire
        while self._to_handler:
            try:
                sent = wire.send(self._to_handler)
            except BlockingIOError:
                break
            except OSError:
                self._to_handler.clear()
                break
            del self._to_handler[:sent]
        if wire.fileno() in self._sources:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._to_handler else 0)
            self._selector.modify(wire.fileno(), events, partial(self._forward, wire.fileno()))

    def _end(self) -> None:
        """The handler has exited, or the host wants no more of it: hand over what is left."""
        if self._is_ended:
            return
        self._is_ended = True
        pid, status = os.waitpid(self._handler.pid, os.WNOHANG)
        if pid == 0 or machine.is_group_populated():
            handlers.end_all()
        for source in list(self._sources):
            while source in self._sources:
                self._forward_all(source)
        boot = self._boot
        send_outputs(self._port, boot["output_files_bytes"], boot["output_files"])
        # The group dies as a whole for want of memory, the handler included.
        was_killed = pid == 0 or status != 0
        usage = machine.usage(look_for_kills=was_killed)
        self._port.send_control(event="ended", status=status if pid else None, **usage)
        self._port.drain()
        self._port.wait_control()

    def _forward_all(self, source: int) -> None:
        """Like forwarding, for a source whose writers are all gone: it ends."""
        before = len(self._sources)
        os.set_blocking(source, True)
        self._forward(source)
        if len(self._sources) == before:
            self._port.drain()
