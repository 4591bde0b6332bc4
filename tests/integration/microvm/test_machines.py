"""Handlers in real virtual machines, under software emulation, which works everywhere."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.bootstrap.backends import machine_pool
from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import Settings
from swarm.sandbox.microvm.backend import MicrovmBackend
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import (
    InputMount,
    InvocationResult,
    Isolation,
    Limits,
    Outcome,
    Program,
    SandboxRequest,
)
from tests.contract.sandbox.calling import CONTEXT, MEBIBYTE, RecordingServices
from tests.integration.microvm import machines

LIMITS = Limits(memory_bytes=128 * MEBIBYTE, timeout_seconds=120)
PYTHON = """
import os, random, secrets, sys, time, uuid
from pathlib import Path

def numbers():
    return [random.random(), secrets.token_hex(8), str(uuid.uuid4()), os.urandom(8).hex()]

def facts():
    status = Path("/proc/self/status").read_text()
    return {
        "uid": os.getuid(),
        "capabilities": [line.split()[1] for line in status.splitlines() if "CapEff" in line],
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "year": time.gmtime().tm_year,
        "left": sorted(os.listdir("/tmp")) + sorted(os.listdir("/outputs")),
        "environment": dict(os.environ),
        "disks_writable": any(os.access(f"/dev/{n}", os.W_OK) for n in os.listdir("/dev")
                              if n.startswith("vd")),
    }

def hand_out():
    out = Path(os.environ["SWARM_OUTPUTS"])
    (out / "deep" / "er").mkdir(parents=True)
    (out / "deep" / "er" / "data.bin").write_bytes(bytes(range(256)) * 1024)
    (out / "empty").write_text("")
    (out / "link").symlink_to("/etc/passwd")
    os.mkfifo(out / "pipe")
    return {"$file": "deep"}

def handler(inputs, context):
    act = inputs["do"]
    if act == "echo":
        print("to stdout")
        print("to stderr", file=sys.stderr)
        context.log("logged")
        context.progress(0.5, "half")
        return {"echo": inputs["value"], "secret": context.secret("KEY"), **facts()}
    if act == "numbers":
        Path("/tmp/trace").write_text("was here")
        Path("/outputs/trace").write_text("was here")
        return {"numbers": numbers(), "left": facts()["left"]}
    if act == "raise":
        raise ValueError("no luck")
    if act == "hang":
        while True:
            time.sleep(60)
    if act == "eat":
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1 << 20)))
    if act == "exit":
        os._exit(7)
    if act == "big":
        return {"text": "x" * inputs["size"]}
    if act == "files":
        return {"made": hand_out()}
    if act == "flood":
        Path("/outputs/big").write_bytes(bytes(inputs["size"]))
        return {}
    if act == "read":
        return {n: Path(f"/inputs/{n}").read_text() for n in ("a.txt", "folder/b.txt")}
    raise KeyError(act)
"""
Run = Callable[..., Awaitable[InvocationResult]]


@pytest.fixture
def python(tmp_path: Path) -> Program:
    return machines.program(tmp_path / "package", {"main.py": PYTHON}, "python", "main.py")


@pytest.fixture
def services() -> RecordingServices:
    return RecordingServices(secrets={"KEY": "value"})


@pytest.fixture
def run(backend: MicrovmBackend, python: Program, services: RecordingServices) -> Run:
    async def call(act: str, *, limits: Limits = LIMITS, **given: Any) -> InvocationResult:
        sandbox = await backend.prepare(SandboxRequest(python, limits))
        try:
            return await sandbox.call({"do": act, **given}, CONTEXT, services)
        finally:
            await sandbox.destroy()

    return call


async def call_once(
    backend: MicrovmBackend,
    request: SandboxRequest,
    inputs: JsonObject,
    services: RecordingServices,
) -> InvocationResult:
    sandbox = await backend.prepare(request)
    try:
        return await sandbox.call(inputs, CONTEXT, services)
    finally:
        await sandbox.destroy()


@pytest.mark.everyday
async def test_a_python_handler_is_served_like_in_any_sandbox(
    run: Run, services: RecordingServices
) -> None:
    result = await run("echo", value={"nested": [1, 2.5, None, "ü"]})
    assert result.outcome is Outcome.OK, result
    outputs: Any = result.outputs
    assert outputs["echo"] == {"nested": [1, 2.5, None, "ü"]}
    assert outputs["secret"] == "value"
    assert set(services.lines) == {
        ("stdout", "info", "to stdout"),
        ("stderr", "warning", "to stderr"),
        ("log", "info", "logged"),
    }
    assert services.progressed == [(0.5, "half")]
    assert result.usage.cpu_ms > 0
    assert 0 < result.usage.peak_memory_bytes < LIMITS.memory_bytes
    assert outputs["uid"] == 1000
    assert outputs["capabilities"] == ["0000000000000000"]
    assert outputs["interfaces"] == ["lo"]
    assert outputs["year"] >= 2025
    assert outputs["left"] == []
    assert not outputs["disks_writable"]
    assert outputs["environment"]["SWARM_RUN_ID"] == "run_1"


@pytest.mark.everyday
async def test_nothing_leaks_from_one_invocation_to_the_next(run: Run) -> None:
    results: Any = [(await run("numbers")).outputs for _ in range(2)]
    first, second = results
    assert first["left"] == second["left"] == ["trace", "trace"]
    assert not set(first["numbers"]) & set(second["numbers"])


async def test_two_machines_of_one_snapshot_run_at_once(run: Run) -> None:
    results = await asyncio.gather(run("numbers"), run("numbers"))
    numbers: list[Any] = [result.outputs for result in results]
    assert not set(numbers[0]["numbers"]) & set(numbers[1]["numbers"])


async def test_a_package_called_repeatedly_finds_its_next_machine_waiting(
    settings: Settings, python: Program, services: RecordingServices
) -> None:
    pool = PooledBackend(MicrovmBackend(settings), machine_pool(settings))
    request = SandboxRequest(python, LIMITS)

    async def call() -> list[Any]:
        sandbox = await pool.prepare(request)
        result = await sandbox.call({"do": "numbers"}, CONTEXT, services)
        await sandbox.destroy()
        outputs: Any = result.outputs
        assert outputs["left"] == ["trace", "trace"]
        found: list[Any] = outputs["numbers"]
        return found

    try:
        numbers = await call() + await call()
        async with asyncio.timeout(60):
            while pool.ready == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        numbers += await call()
        assert len(set(numbers)) == len(numbers)
    finally:
        await pool.close()


async def test_what_waits_takes_memory_of_its_own_only(
    backend: MicrovmBackend, python: Program
) -> None:
    waiting = await backend.prepare_ahead(SandboxRequest(python, LIMITS))
    assert waiting.is_alive
    assert 0 < waiting.memory_bytes() < LIMITS.memory_bytes
    process = waiting._parts.machine.process
    if os.geteuid() == 0:
        assert os.getpriority(os.PRIO_PROCESS, process.pid) > 0
        waiting.wake()
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 0
    await waiting.destroy()
    assert not waiting.is_alive


async def test_an_exception_is_told_with_its_traceback(run: Run) -> None:
    result = await run("raise")
    assert (result.outcome, result.error) == (Outcome.ERROR, "ValueError: no luck")
    assert 'File "/package/main.py"' in (result.traceback or "")


@pytest.mark.everyday
async def test_a_handler_that_hangs_is_killed_when_its_time_is_up(run: Run) -> None:
    result = await run("hang", limits=replace(LIMITS, timeout_seconds=2))
    assert (result.outcome, result.error_code) == (Outcome.TIMEOUT, "timeout")


async def test_a_handler_that_eats_memory_is_told_so(run: Run) -> None:
    result = await run("eat")
    assert result.outcome is Outcome.OOM, result
    assert "128 MiB" in (result.error or "")


async def test_a_handler_that_just_exits_is_an_error(run: Run) -> None:
    result = await run("exit")
    assert (result.outcome, result.error_code) == (Outcome.ERROR, "exited")
    assert "code 7" in (result.error or "")


async def test_outputs_may_be_large_and_not_too_large(run: Run) -> None:
    result = await run("big", size=1_000_000)
    assert result.outputs == {"text": "x" * 1_000_000}
    result = await run("big", size=2_000_000, limits=replace(LIMITS, output_bytes=1_500_000))
    assert result.error_code == "output_too_large"


@pytest.mark.everyday
async def test_files_are_handed_out_and_strange_ones_stay_behind(
    backend: MicrovmBackend, python: Program, services: RecordingServices
) -> None:
    sandbox = await backend.prepare(SandboxRequest(python, LIMITS))
    result = await sandbox.call({"do": "files"}, CONTEXT, services)
    assert result.outputs == {"made": {"$file": "deep"}}
    folder = Path(f"/proc/self/fd/{await sandbox.outputs_descriptor()}")
    data = (folder / "deep" / "er" / "data.bin").read_bytes()
    assert data == bytes(range(256)) * 1024
    assert (folder / "empty").read_bytes() == b""
    assert os.readlink(folder / "link") == "/etc/passwd"  # noqa: PTH115
    assert not os.path.lexists(folder / "pipe")
    assert "pipe is no file" in services.text
    place = folder.resolve()
    await sandbox.destroy()
    assert not place.exists()


async def test_files_beyond_the_limit_are_the_handlers_problem(run: Run) -> None:
    limits = replace(LIMITS, output_files_bytes=1 << 20)
    result = await run("flood", size=2 << 20, limits=limits)
    assert result.outcome is Outcome.ERROR
    assert "No space left" in (result.error or "")


async def test_inputs_appear_read_only_and_readable(
    backend: MicrovmBackend, python: Program, services: RecordingServices, tmp_path: Path
) -> None:
    (tmp_path / "secretive.txt").write_text("alpha")
    (tmp_path / "secretive.txt").chmod(0o600)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "b.txt").write_text("beta")
    mounts = (
        InputMount("a.txt", tmp_path / "secretive.txt"),
        InputMount("folder", tmp_path / "tree"),
    )
    request = SandboxRequest(python, LIMITS, inputs=mounts)
    result = await call_once(backend, request, {"do": "read"}, services)
    assert result.outputs == {"a.txt": "alpha", "folder/b.txt": "beta"}


async def test_the_record_says_what_held(backend: MicrovmBackend, python: Program) -> None:
    sandbox = await backend.prepare(SandboxRequest(python, LIMITS))
    assert sandbox.isolation is Isolation.MICROVM
    assert {"microvm-tcg", "no-network-device", "monitor-seccomp"} <= set(sandbox.layers)
    await sandbox.destroy()
    await sandbox.destroy()


async def test_a_cancelled_call_leaves_no_machine(
    backend: MicrovmBackend, python: Program, services: RecordingServices
) -> None:
    sandbox = await backend.prepare(SandboxRequest(python, LIMITS))
    process = sandbox._parts.machine.process
    call = asyncio.ensure_future(sandbox.call({"do": "hang"}, CONTEXT, services))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert process.exited.done()
    await sandbox.destroy()


async def test_without_an_image_the_remedy_is_told(tmp_path: Path, python: Program) -> None:
    backend = MicrovmBackend(Settings(home=tmp_path / "home"))
    with pytest.raises(SandboxUnavailable, match="swarm sandbox build-image"):
        await backend.prepare(SandboxRequest(python, LIMITS))
    await backend.close()
