"""The agent's life: boot, rehearse, wait in the snapshot, serve one invocation."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from functools import partial
from typing import Any

from . import handler as handlers
from . import machine
from .frames import CONNECTION, CONTROL, STDERR, STDOUT, WIRE
from .outputs import OutputsFolder, send_outputs
from .port import HostGone, Port, open_port
from .proxying import Proxying
from .rehearsing import Stage
from .watching import READ, WRITE, Watch

_CHUNK = 64 * 1024
_SETTLE_SECONDS = 1.0
"""What the kernel has put off (it frees memory, counts, closes) is done in that time."""


def main() -> None:
    """Serve one invocation; returns when the host has all of it.

    There are two snapshots on the way: of a machine that has booted, and of one with a package.
    """
    machine.set_clock(machine.BOOT_TIME)
    machine.mount_system()
    machine.write("/proc/self/oom_score_adj", "-1000")
    port = open_port()
    guest = handlers.load_modules(port.wait_control()["modules"])
    _wait_for_snapshot(port)
    boot = _first_message(port)
    machine.mount_package()
    machine.make_group(boot)
    machine.mount_work(boot)
    agent = Agent(boot, guest)
    for _ in range(boot["rehearsals"]):
        agent.rehearse()
    if boot["rehearsals"]:
        agent.handler.settle(boot["environment"])
    invocation = Invocation(port, agent)
    _wait_for_snapshot(port)
    # What follows is paid for by each invocation.
    message = _first_message(port)
    if message["op"] == "rehearse":  # It was restored ahead, and has time to get up to speed.
        for _ in range(min(boot["rehearsals"], 1)):
            agent.rehearse()
        message = port.wait_control()
    agent.begin(message, port)
    invocation.serve()


def _wait_for_snapshot(port: Port) -> None:
    machine.clear_free_memory()
    time.sleep(_SETTLE_SECONDS)
    port.send_control(event="ready")
    port.drain()


def _first_message(port: Port) -> dict[str, Any]:
    """The first after a restore."""
    try:
        return port.wait_control()
    except HostGone:
        port.reopen()
        return port.wait_control()


class Agent:
    """The handler's process, and what is opened before the snapshot."""

    def __init__(self, boot: dict[str, Any], guest: Any) -> None:
        self.boot = boot
        self.handler = handlers.make_handler(boot, guest)
        self.usage = machine.Usage()
        self.handler_processes = self.usage.processes()
        """Processes and threads of a handler that rests."""
        self.is_rehearsing = False
        self.outputs = OutputsFolder()
        self._random = machine.RandomSource()
        self.children, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        """Readable when a process has ended."""
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def begin(self, start: dict[str, Any], port: Port) -> None:
        """Make the machine what it is to be for this invocation, and let the handler go on."""
        machine.set_clock(start["time_ns"])
        self._random.reseed(bytes.fromhex(start["seed"]))
        if start["inputs"]:
            machine.mount_inputs()
        act = "rehearse" if self.is_rehearsing else "call"
        self.handler.begin(start["environment"], act=act)
        port.send_control(event="started")

    def rehearse(self) -> None:
        """Serve a call of no package's as after a restore: what runs for the first time maps and
        copies memory, and learns."""
        self.is_rehearsing = True
        stage = Stage(self.boot["rehearsal"])
        invocation = Invocation(stage.port, self)
        stage.send_start()
        self.begin(stage.port.wait_control(), stage.port)
        stage.send_call()
        invocation.serve()
        stage.close()
        self.handler.finish_rehearsal()
        machine.set_clock(machine.BOOT_TIME)
        self.is_rehearsing = False


class Invocation:
    """Carries bytes between the handler and the host until the handler is done, or ends."""

    def __init__(self, port: Port, agent: Agent) -> None:
        self._port = port
        self._agent = agent
        self._handler = handler = agent.handler
        self._to_handler = bytearray()
        self._is_behind = False
        """Whether the handler's wire is watched for room."""
        self._is_waiting = False
        """Whether the port is."""
        self._is_ended = False
        self._watch = Watch()
        self._proxying: Proxying | None = None
        if agent.boot["proxy_port"] and not agent.is_rehearsing:
            self._proxying = Proxying(port, self._watch, agent.boot["proxy_port"])
        self._sources = {handler.wire: WIRE, handler.stdout: STDOUT, handler.stderr: STDERR}
        for source in self._sources:
            self._watch.add(source, READ, partial(self._forward, source))
        self._watch.add(agent.children, READ, self._reap)
        self._watch.add(handler.pidfd, READ, self._end)
        self._watch.add(handler.start, READ, self._act_on_start)
        self._watch.add(port.descriptor, READ, self._act_on_port)

    def serve(self) -> None:
        """Serve until the handler is done and the host has what it left."""
        port = self._port
        self._take_frames()  # Those that came with the message that began this.
        while not self._is_ended:
            self._watch.wait()
            if port.is_busy:
                port.drain()
            if port.has_output != self._is_waiting:
                self._is_waiting = port.has_output
                events = READ | WRITE if self._is_waiting else READ
                self._watch.add(port.descriptor, events, self._act_on_port)

    def _act_on_port(self, events: int) -> None:
        if events & WRITE:
            self._port.flush()
        if events & ~WRITE:
            self._port.receive()
            self._take_frames()

    def _act_on_start(self, _: int) -> None:
        if self._handler.is_done():
            self._end()
        else:  # It was closed. Its process tells how that goes on.
            self._watch.drop(self._handler.start)

    def _forward(self, source: int, events: int) -> None:
        """One chunk from the handler to the host."""
        if events & WRITE:
            self._feed()
        if not events & ~WRITE:
            return
        try:
            data = os.read(source, _CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            self._port.send(self._sources[source], data)
        else:
            self._watch.drop(source)
            del self._sources[source]
            if source == self._handler.wire:
                self._port.send_control(event="wire_closed")

    def _take_frames(self) -> None:
        while (found := self._port.take()) is not None:
            kind, data = found
            if kind == WIRE:
                self._to_handler += data
                self._feed()
            elif kind == CONNECTION and self._proxying is not None:
                self._proxying.take(data)
            elif kind == CONTROL:
                self._take_control(json.loads(data.decode()))

    def _take_control(self, message: dict[str, Any]) -> None:
        operation = message["op"]
        if operation == "end":
            self._end()
        elif self._proxying is not None and operation == "close":
            self._proxying.end(message["number"])
        elif self._proxying is not None and operation == "credit":
            self._proxying.credit(message["number"], message["size"])

    def _reap(self, _: int) -> None:
        """Reap orphans, which would count as processes of the handler's; never the handler."""
        os.read(self._agent.children, _CHUNK)
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
                sent = os.write(wire, self._to_handler[:_CHUNK])
            except BlockingIOError:
                break
            except OSError:
                self._to_handler.clear()
                break
            del self._to_handler[:sent]
        is_behind = bool(self._to_handler)
        if is_behind != self._is_behind and wire in self._sources:
            self._is_behind = is_behind
            events = READ | WRITE if is_behind else READ
            self._watch.add(wire, events, partial(self._forward, wire))

    def _end(self, _: int = 0) -> None:
        """Hand over what is left: the handler is done, or has exited, or the host wants no more."""
        if self._is_ended:
            return
        self._is_ended = True
        agent, port = self._agent, self._port
        status: int | None = 0
        if not self._handler.is_done() or agent.usage.processes() > agent.handler_processes:
            status = self._end_all()
        for source in list(self._sources):
            self._forward_rest(source)
        if agent.outputs.has_any():
            send_outputs(port, agent.boot["output_files_bytes"], agent.boot["output_files"])
        # The group dies as a whole for want of memory, the handler included.
        usage = agent.usage.read(look_for_kills=status != 0)
        port.send_control(event="ended", status=status, **usage)
        port.drain()
        if not agent.is_rehearsing:
            port.wait_control()

    def _end_all(self) -> int | None:
        """Kill what is left; the handler's status, None when it did not end by itself."""
        handler = self._handler
        pid, status = os.waitpid(handler.pid, os.WNOHANG)
        if pid == 0 or self._agent.usage.processes() > 0:
            handlers.end_all()
        if pid == 0:
            return 0 if handler.is_done() else None
        return status

    def _forward_rest(self, source: int) -> None:
        """Forward what has been written and is not read yet; who wrote it is gone, or waits."""
        poll = select.poll()
        poll.register(source, READ)
        while source in self._sources and poll.poll(0):
            self._forward(source, READ)
            self._port.drain()
