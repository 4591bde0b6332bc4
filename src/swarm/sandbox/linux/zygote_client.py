"""The host's side of the zygote: starts it, asks it for sandboxes, hears of their ends."""

from __future__ import annotations

import array
import asyncio
import os
import select
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.json import JsonObject, dump_bytes, loads
from swarm.sandbox import linux
from swarm.sandbox.interpreters import Interpreter
from swarm.sandbox.linux.remedies import unavailable

_PROGRAM: Final = Path(linux.__file__).parent / "zygote"
_ENVIRONMENT: Final = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    # Else every sandbox finds out for itself where the C library's functions are.
    "LD_BIND_NOW": "1",
}
_MESSAGE_LIMIT: Final = 64 * 1024
_START_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class HandlerEnd:
    """The end of a handler. All that it left behind is being killed."""

    status: int | None
    """Its wait status; None when it did not end by itself."""
    cpu_seconds: float
    """Its own and of all that it waited for, from its making on."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a sandbox: every process of it is gone."""

    status: int | None
    """The wait status of its init; None when the zygote died with it."""


class SpawnedProcess:
    """A sandbox as the zygote knows it."""

    def __init__(self, sandbox_id: str) -> None:
        loop = asyncio.get_running_loop()
        self.id = sandbox_id
        self.refused: asyncio.Future[SandboxUnavailable] = loop.create_future()
        self.started: asyncio.Future[None] = loop.create_future()
        """Settled once ``init``, ``handler`` and ``uid`` are known."""
        self.handler_ended: asyncio.Future[HandlerEnd | None] = loop.create_future()
        """None when the zygote died with it."""
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.init = -1
        """The host's pid of its init."""
        self.handler = -1
        """The host's pid of its handler."""
        self.uid = -1
        """The host's uid of its processes."""


class Zygote:
    """A running zygote. Make one with :meth:`start`."""

    def __init__(self, control: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._control = control
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._spawned: dict[str, SpawnedProcess] = {}
        self._send_lock = asyncio.Lock()
        loop = asyncio.get_running_loop()
        self._configured: asyncio.Future[JsonObject] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self.pid = process.pid
        """As the host counts; of what started it, until it is configured."""
        self.landlock = 0
        """The Landlock version that its sandboxes use, 0 for none."""
        loop.add_reader(control, self._receive)

    @classmethod
    async def start(
        cls,
        python: Interpreter,
        configuration: JsonObject,
        locks: Sequence[int],
        user: str | None,
    ) -> Zygote:
        """Start and configure one.

        Args:
            python: the interpreter that it runs on, and so all Python handlers.
            configuration: see :func:`swarm.sandbox.linux.plan.configuration`.
            locks: descriptors that it and its inits keep open.
            user: see :func:`swarm.sandbox.linux.plan.ordinary_user`.

        Raises:
            SandboxUnavailable: a layer that it needs is refused.
        """
        host, guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        host.setblocking(False)
        with guest:
            # Popen returns once the program is executed, and whoever calls waits for that anyway.
            process = subprocess.Popen(  # noqa: ASYNC220
                [
                    *(python.program, "-I", "-S", str(_PROGRAM), str(guest.fileno())),
                    *([] if user is None else [user]),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(guest.fileno(), *locks),
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        zygote = cls(host, process)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await zygote._send(dump_bytes(configuration), [])
                answer = await zygote._configured
        except TimeoutError:
            await zygote.close()
            raise unavailable("zygote", 0, "the zygote did not start in time") from None
        if answer["event"] != "configured":
            await zygote.close()
            raise unavailable(answer["layer"], answer["errno"], answer["detail"])
        zygote.landlock = answer["landlock"]
        zygote.pid = answer["pid"]
        return zygote

    @property
    def is_alive(self) -> bool:
        """By the kernel's word of now."""
        if self._gone.done() or has_ended(self._pidfd):
            return False  # A fork of it may hold its end of the connection for a moment longer.
        return is_connected(self._control.fileno())

    async def spawn(self, id: str, owners: list[str], descriptors: Sequence[int]) -> SpawnedProcess:  # noqa: A002
        """Ask for a sandbox.

        Args:
            id: of the sandbox.
            owners: ``uid:gid`` of the files that it must be able to read.
            descriptors: its channel, wire, stdout and stderr.
        """
        spawned = SpawnedProcess(id)
        self._spawned[id] = spawned
        if self._gone.done():
            self._end(spawned, Ended(None))
        else:
            message = {"op": "spawn", "id": id, "owners": owners}
            await self._send(dump_bytes(message), descriptors)
        return spawned

    async def kill(self, spawned: SpawnedProcess) -> Ended:
        """Kill a sandbox and wait until nothing of it is left."""
        if not spawned.ended.done():
            await self._send(dump_bytes({"op": "kill", "id": spawned.id}), [])
        return await asyncio.shield(spawned.ended)

    async def close(self) -> None:
        """End the zygote, and with it all its sandboxes; safe to call twice."""
        if not self._gone.done():
            self._control.shutdown(socket.SHUT_WR)
            await asyncio.shield(self._gone)

    async def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        ancillary = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        async with self._send_lock:
            while not self._gone.done():
                try:
                    self._control.sendmsg([data], [ancillary] if descriptors else [])
                except BlockingIOError:
                    await self._wait_writable()
                except ConnectionError:
                    return  # Its end is met by the reader, with what is still to be read.
                else:
                    return

    async def _wait_writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._control, _settle, writable)
        try:
            await asyncio.wait([writable, self._gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not self._gone.done():
                loop.remove_writer(self._control)

    def _receive(self) -> None:
        try:
            data = self._control.recv(_MESSAGE_LIMIT)
        except BlockingIOError:
            return
        except ConnectionResetError:
            # It ended without reading all that was sent to it, which is told once, and before what
            # it had to say. That is still there to be read, and after it the end.
            return
        except ConnectionError:
            data = b""
        if data:
            self._take(loads(data))
        else:
            self._lose()

    def _take(self, message: JsonObject) -> None:
        if "id" not in message:
            if not self._configured.done():
                self._configured.set_result(message)
            return
        spawned = self._spawned[message["id"]]
        if message["event"] == "spawned":
            spawned.init = message["init"]
            spawned.handler = message["handler"]
            spawned.uid = message["uid"]
            spawned.started.set_result(None)
        elif message["event"] == "ended":
            end = HandlerEnd(message["status"], message["cpu_seconds"])
            spawned.handler_ended.set_result(end)
        elif message["event"] == "exited":
            self._end(spawned, Ended(message["status"]))
        elif message["event"] == "failed":
            error = unavailable(message["layer"], message["errno"], message["detail"])
            spawned.refused.set_result(error)
            self._end(spawned, Ended(None))

    def _end(self, spawned: SpawnedProcess, ended: Ended) -> None:
        del self._spawned[spawned.id]
        if not spawned.handler_ended.done():
            spawned.handler_ended.set_result(None)
        spawned.ended.set_result(ended)

    def _lose(self) -> None:
        """The zygote closed its end: it has exited, or is about to."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._control)
        loop.remove_writer(self._control)
        self._control.close()
        self._process.wait()
        os.close(self._pidfd)
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        complaint = (self._process.stderr.read() or b"").decode("utf-8", "replace")
        self._process.stderr.close()
        if not self._configured.done():
            failure = {"event": "failed", "layer": "zygote", "errno": 0}
            self._configured.set_result({**failure, "detail": complaint or "it died at once"})
        for spawned in list(self._spawned.values()):
            self._end(spawned, Ended(None))
        self._gone.set_result(None)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def descriptors_of(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a message."""
    found = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
    return list(found)


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def has_ended(pidfd: int) -> bool:
    """Whether a process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def is_connected(descriptor: int) -> bool:
    """Whether the other end of a socket is open in some process."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return not poll.poll(0)
