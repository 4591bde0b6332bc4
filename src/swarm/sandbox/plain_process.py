"""A guest in a plain process of the host: the same wire, no wall."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm.kernel.errors import SandboxUnavailable, SwarmError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import Settings
from swarm.sandbox.guests import GUEST, NODE_GUEST, guest_variables, node_options
from swarm.sandbox.interpreters import find_node, python_program
from swarm.sandbox.ports import (
    CallContext,
    GuestServices,
    InvocationResult,
    Isolation,
    ResourceUsage,
    SandboxRequest,
)
from swarm.sandbox.scratch import Scratch
from swarm.sandbox.session import GuestEnds, GuestSession
from swarm.sandbox.verdict import Ending, conclude
from swarm.sandbox.wire import Answer

_EXIT_GRACE_SECONDS = 1.0
"""How long a process that has answered may take to exit before it is killed."""


class ProcessSandbox:
    """See :class:`swarm.sandbox.ports.Sandbox`. Nothing but its process group is contained."""

    isolation = Isolation.NONE
    layers = ("none",)

    def __init__(
        self,
        request: SandboxRequest,
        settings: Settings,
        scratch: Scratch,
        on_destroyed: Callable[[ProcessSandbox], None],
    ) -> None:
        self.id = new_id("prc")
        self._request = request
        self._settings = settings
        self._scratch = scratch
        self._on_destroyed = on_destroyed
        self._session = GuestSession(request.limits)
        self._folder: Path | None = None
        self._outputs = -1
        self._life_line = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: asyncio.Future[tuple[int, float]] = asyncio.get_running_loop().create_future()
        self._is_killed = False
        self._is_called = False

    async def start(self) -> None:
        """Start the guest.

        Raises:
            SandboxUnavailable: its interpreter cannot be executed.
        """
        self._folder = self._scratch.make()
        outputs = self._folder / "outputs"
        outputs.mkdir()
        self._outputs = os.open(outputs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        ends = await self._session.open()
        try:
            program = await asyncio.to_thread(self._program)
            self._process = self._execute(program, ends)
        except OSError as error:
            raise SandboxUnavailable(
                f"the handler's process cannot be started: {error.strerror}",
                where=str(error.filename),
                remedy="check that the package is still there",
            ) from None
        finally:
            ends.close()
        pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(pidfd, self._reap, pidfd)

    async def call(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> InvocationResult:
        """Run the handler once; when this returns, its process group is gone."""
        if self._is_called or self._process is None:
            raise SwarmError("a sandbox serves one call only", where=self.id)
        self._is_called = True
        started = time.monotonic()
        try:
            answer, is_late = await self._await_answer(inputs, context, services)
        except asyncio.CancelledError:
            await asyncio.shield(self._kill())
            raise
        status, cpu_seconds = await self._kill()
        self._session.drain()
        usage = ResourceUsage(
            wall_ms=round((time.monotonic() - started) * 1000),
            cpu_ms=round(cpu_seconds * 1000),
            output_bytes=answer.size if answer is not None else 0,
            log_bytes=self._session.budget.received,
        )
        ending = Ending(answer, is_late=is_late, status=None if self._is_killed else status)
        return conclude(ending, self._request.limits, usage)

    async def outputs_descriptor(self) -> int:
        return self._outputs

    async def destroy(self) -> None:
        if self._process is not None:
            await self._kill()
            self._process = None
        self._session.close()
        if self._life_line >= 0:
            os.close(self._life_line)
            self._life_line = -1
        if self._outputs >= 0:
            os.close(self._outputs)
            self._outputs = -1
        if self._folder is not None:
            folder, self._folder = self._folder, None
            await asyncio.to_thread(shutil.rmtree, folder)
        self._on_destroyed(self)

    async def _await_answer(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> tuple[Answer | None, bool]:
        request = self._request
        inputs = {name: self._own_paths(value) for name, value in inputs.items()}
        call = asyncio.ensure_future(
            self._session.call(request.program.entry, inputs, context.as_json(), services)
        )
        try:
            waited: list[asyncio.Future[Any]] = [call, self._ended]
            done, _ = await asyncio.wait(
                waited,
                timeout=request.limits.timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if done and not (call.done() and self._ended.done()):
                # A process that has answered exits; one that has exited may have answered.
                await asyncio.wait(waited, timeout=_EXIT_GRACE_SECONDS)
        finally:
            if not call.done():
                call.cancel()
        is_answered = call.done() and not call.cancelled()
        return call.result() if is_answered else None, not done

    def _own_paths(self, value: JsonValue) -> JsonValue:
        """Paths of mounted inputs, which are mounted nowhere here, as those of the host."""
        if isinstance(value, str):
            for mount in self._request.inputs:
                inside = f"/inputs/{mount.name}"
                if value == inside or value.startswith(f"{inside}/"):
                    return f"{mount.source}{value.removeprefix(inside)}"
        elif isinstance(value, list):
            return [self._own_paths(item) for item in value]
        elif isinstance(value, dict):
            return {name: self._own_paths(item) for name, item in value.items()}
        return value

    def _program(self) -> list[str]:
        request = self._request
        if request.program.runtime == "node":
            node = find_node(self._settings)
            return [str(node.program), *node_options(request.limits), str(GUEST / NODE_GUEST)]
        return [str(python_program().program), "-I", str(GUEST)]

    def _execute(self, program: list[str], ends: GuestEnds) -> subprocess.Popen[bytes]:
        end, self._life_line = os.pipe()
        try:
            process = subprocess.Popen(
                program,
                stdin=subprocess.DEVNULL,
                stdout=ends.stdout,
                stderr=ends.stderr,
                pass_fds=(ends.wire, end),
                cwd=self._request.program.package,
                env=self._environment(ends.wire),
                start_new_session=True,
            )
            _kill_at_hangup(end, process.pid)
        finally:
            os.close(end)
        return process

    def _environment(self, wire: int) -> dict[str, str]:
        program, folder = self._request.program, str(self._folder)
        values = {
            **self._request.environment,
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": folder,
            "TMPDIR": folder,
            "LANG": "C.UTF-8",
            **guest_variables(self._request, wire),
            "SWARM_PACKAGE": str(program.package),
            "SWARM_OUTPUTS": str(Path(folder) / "outputs"),
        }
        if program.environment is not None:
            values["SWARM_ENVIRONMENT"] = str(program.environment)
            values["PATH"] = f"{program.environment / 'bin'}:{values['PATH']}"
            if program.runtime == "node":
                values["NODE_PATH"] = str(program.environment / "node_modules")
        return values

    async def _kill(self) -> tuple[int, float]:
        assert self._process is not None
        if not self._ended.done():
            self._is_killed = True
            os.killpg(self._process.pid, signal.SIGKILL)
        return await asyncio.shield(self._ended)

    def _reap(self, pidfd: int) -> None:
        """The guest has ended: kill what it left in its group, while the group's name is held."""
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        os.killpg(self._process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set_result((status, usage.ru_utime + usage.ru_stime))


def _kill_at_hangup(end: int, group: int) -> None:
    """Have the kernel kill a process group when the pipe's other end is closed, as it is when this
    process dies, however it dies: the successor of an attempt must never run beside it.

    The group holds ``end`` open: see F_SETSIG and F_SETOWN in fcntl(2). A host that dies before
    this has not called the handler yet, and its guest ends for want of a wire.
    """
    fcntl.fcntl(end, fcntl.F_SETOWN, -group)
    fcntl.fcntl(end, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_ASYNC)
