"""QEMU killed at any moment: whoever waits is told, at once, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.settings import Settings
from swarm.sandbox.microvm import qemu
from swarm.sandbox.microvm.backend import MicrovmBackend
from swarm.sandbox.microvm.processes import MachineProcess, start_process
from swarm.sandbox.ports import InvocationResult, Limits, Outcome, Program, SandboxRequest
from tests.conftest import Scale
from tests.contract.sandbox.calling import CONTEXT, MEBIBYTE, RecordingServices
from tests.integration.microvm import machines

LIMITS = Limits(memory_bytes=128 * MEBIBYTE, timeout_seconds=120)
AT_ONCE_SECONDS = 20
"""Much less than any limit that a machine has for its answers."""
CODE = """
import pathlib, time

def handler(inputs):
    if inputs["do"] == "wait":
        print("waiting", flush=True)
        time.sleep(100)
    if inputs["do"] == "files":
        for number in range(200):
            pathlib.Path(f"/outputs/{number}").write_bytes(bytes(1000))
    return {"all": "well"}
"""


@pytest.fixture
def request_(tmp_path: Path) -> SandboxRequest:
    program = machines.program(tmp_path / "package", {"main.py": CODE}, "python", "main.py")
    return SandboxRequest(program, LIMITS)


async def serve(
    backend: MicrovmBackend, request: SandboxRequest, act: str, services: RecordingServices
) -> InvocationResult | SandboxUnavailable:
    try:
        sandbox = await backend.prepare(request)
    except SandboxUnavailable as error:
        return error
    try:
        return await sandbox.call({"do": act}, CONTEXT, services)
    finally:
        await sandbox.destroy()


def assert_nothing_is_left(backend: MicrovmBackend) -> None:
    workplace: Any = backend._workplace
    assert [path.name for path in workplace._folder.iterdir()] == ["lock"]
    assert not backend._sandboxes


@pytest.mark.everyday
async def test_killed_while_it_works(backend: MicrovmBackend, request_: SandboxRequest) -> None:
    sandbox = await backend.prepare(request_)
    services = RecordingServices()
    call = asyncio.ensure_future(sandbox.call({"do": "wait"}, CONTEXT, services))
    async with asyncio.timeout(60):
        while not services.lines:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    os.kill(sandbox._parts.machine.process.pid, signal.SIGKILL)
    async with asyncio.timeout(AT_ONCE_SECONDS):
        result = await call
    assert (result.outcome, result.error_code) == (Outcome.KILLED, "killed")
    assert result.error == "the virtual machine ended"
    await sandbox.destroy()
    assert_nothing_is_left(backend)


async def test_killed_between_restore_and_call(
    backend: MicrovmBackend, request_: SandboxRequest
) -> None:
    sandbox = await backend.prepare(request_)
    os.kill(sandbox._parts.machine.process.pid, signal.SIGKILL)
    async with asyncio.timeout(AT_ONCE_SECONDS):
        result = await sandbox.call({"do": "nothing"}, CONTEXT, RecordingServices())
    assert result.outcome is Outcome.KILLED
    assert not sandbox.is_alive
    await sandbox.destroy()


async def test_stopped_it_runs_into_the_limit_of_the_call(
    backend: MicrovmBackend, tmp_path: Path
) -> None:
    """A QEMU that neither answers nor ends."""
    program = machines.program(tmp_path / "package", {"main.py": CODE}, "python", "main.py")
    limits = Limits(memory_bytes=128 * MEBIBYTE, timeout_seconds=2)
    sandbox = await backend.prepare(SandboxRequest(program, limits))
    os.kill(sandbox._parts.machine.process.pid, signal.SIGSTOP)
    async with asyncio.timeout(AT_ONCE_SECONDS):
        result = await sandbox.call({"do": "nothing"}, CONTEXT, RecordingServices())
    assert result.outcome is Outcome.TIMEOUT
    await sandbox.destroy()
    assert_nothing_is_left(backend)


async def test_killed_at_any_moment(
    backend: MicrovmBackend,
    request_: SandboxRequest,
    monkeypatch: pytest.MonkeyPatch,
    scale: Scale,
    rng: random.Random,
) -> None:
    first = await serve(backend, request_, "files", RecordingServices())
    assert isinstance(first, InvocationResult)
    assert first.outcome is Outcome.OK
    whole_seconds = first.usage.wall_ms / 1000 + 0.5

    def start_doomed(*arguments: Any, **named: Any) -> MachineProcess:
        made = start_process(*arguments, **named)
        seconds = rng.uniform(0, whole_seconds)
        asyncio.get_running_loop().call_later(seconds, kill, made)
        return made

    def kill(process: MachineProcess) -> None:
        if not process.exited.done():
            os.kill(process.pid, signal.SIGKILL)

    monkeypatch.setattr(qemu, "start_process", start_doomed)
    seen = set()
    for _ in range(scale(small=10, full=100)):
        async with asyncio.timeout(AT_ONCE_SECONDS):
            result = await serve(backend, request_, "files", RecordingServices())
        if isinstance(result, SandboxUnavailable):
            assert result.remedy
            seen.add("unavailable")
            continue
        seen.add(result.outcome.value)
        assert result.outcome in (Outcome.OK, Outcome.KILLED), result
        if result.outcome is Outcome.OK:
            assert result.outputs == {"all": "well"}
    assert "unavailable" in seen
    assert "killed" in seen
    assert_nothing_is_left(backend)


async def test_killed_while_its_snapshot_is_built(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = machines.program(
        tmp_path / "package", {"main.py": f"{CODE}\n# {os.urandom(8).hex()}"}, "python", "main.py"
    )
    request = SandboxRequest(program, LIMITS)
    doomed = [True]

    def start_doomed(*arguments: Any, **named: Any) -> MachineProcess:
        made = start_process(*arguments, **named)
        if doomed:
            doomed.pop()
            asyncio.get_running_loop().call_later(0.4, os.kill, made.pid, signal.SIGKILL)
        return made

    monkeypatch.setattr(qemu, "start_process", start_doomed)
    backend = MicrovmBackend(settings)
    try:
        failed = await serve(backend, request, "nothing", RecordingServices())
        assert isinstance(failed, SandboxUnavailable)
        result = await serve(backend, request, "nothing", RecordingServices())
        assert isinstance(result, InvocationResult)
        assert result.outcome is Outcome.OK
    finally:
        await backend.close()


@pytest.mark.everyday
def test_programs_are_known_by_content(tmp_path: Path) -> None:
    """Else every run of these tests would boot machines of its own."""
    made: list[Program] = [
        machines.program(tmp_path / name, {"main.py": CODE}, "python", "main.py")
        for name in ("one", "two")
    ]
    assert made[0].digest == made[1].digest
