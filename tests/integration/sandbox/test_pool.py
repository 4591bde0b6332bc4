"""Real sandboxes kept ready: what is done ahead of the call, and what is not."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import InputMount, Outcome, SandboxRequest
from tests.contract.sandbox.calling import CONTEXT, MEBIBYTE, Caller, limits

PYTHON = """
import os, random, time, uuid
LOADED = time.monotonic()
DRAWN = [random.random(), str(uuid.uuid4())]

def handler(inputs, context):
    return {
        "waited": time.monotonic() - LOADED,
        "drawn": DRAWN + [random.random()],
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "left": sorted(os.listdir("/tmp")),
    }
"""
REHEARSED = """
import asyncio
run, runs = asyncio.run, []

def counted(main):
    runs.append(main)
    return run(main)

asyncio.run = counted

async def handler(inputs, context):
    return {"runs": len(runs), "attempt": context.attempt}
"""
REHEARSED_NODE = """
const entries = Object.entries;
let runs = 0;
Object.entries = (value) => { runs += 1; return entries(value); };
export function handler(inputs, context) { return { runs, attempt: context.attempt }; }
"""
NODE = """
const loaded = performance.now();
export function handler() { return { waited: performance.now() - loaded }; }
"""


@pytest.fixture
async def kernel(tmp_path: Path) -> NamespaceBackend:
    return NamespaceBackend(Settings(home=tmp_path / "home"))


@pytest.fixture
async def pool(kernel: NamespaceBackend) -> AsyncIterator[PooledBackend]:
    made = PooledBackend(kernel, Settings(pool_ready_per_package=2))
    yield made
    await made.close()


@pytest.fixture
def call(tmp_path: Path, pool: PooledBackend) -> Caller:
    return Caller(tmp_path, pool)


async def until_ready(pool: PooledBackend, count: int = 1) -> None:
    async with asyncio.timeout(30):
        while pool.ready < count:  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0.005)


async def warm(call: Caller, pool: PooledBackend, request: SandboxRequest) -> None:
    """Make the pool keep sandboxes for this request."""
    for _ in range(2):
        await call.run(request, {})
    await until_ready(pool)


async def hit(call: Caller, pool: PooledBackend, request: SandboxRequest) -> Any:
    await until_ready(pool)
    await asyncio.sleep(0.3)  # What is measured is that the time passes before the call.
    result = await call.run(request, {})
    assert result.outcome is Outcome.OK, result
    return result.outputs


async def test_a_hit_has_its_package_loaded_and_nothing_in_common(
    call: Caller, pool: PooledBackend
) -> None:
    request = call.request(PYTHON)
    await warm(call, pool, request)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    found = [await hit(call, pool, request) for _ in range(3)]
    assert all(outputs["waited"] > 0.25 for outputs in found)
    assert all(outputs["left"] == [] for outputs in found)
    assert all(outputs["niceness"] in (0, own) for outputs in found)
    drawn = [value for outputs in found for value in outputs["drawn"]]
    assert len(set(drawn)) == len(drawn)


async def test_a_hit_of_node_has_its_package_loaded(call: Caller, pool: PooledBackend) -> None:
    request = call.request(NODE, runtime="node")
    await warm(call, pool, request)
    # Ready means that every layer holds; on a busy machine, Node may then still be starting.
    for _ in range(20):
        outputs = await hit(call, pool, request)
        if outputs["waited"] > 100:
            break
    assert outputs["waited"] > 100


@pytest.mark.parametrize(("code", "runtime"), [(REHEARSED, "python"), (REHEARSED_NODE, "node")])
async def test_who_waits_for_a_call_goes_through_one_that_does_nothing(
    call: Caller, pool: PooledBackend, code: str, runtime: Literal["python", "node"]
) -> None:
    request = call.request(code, runtime=runtime)
    await warm(call, pool, request)
    async with asyncio.timeout(60):
        while True:
            result = await call.run(request, {})
            assert result.outputs["attempt"] == CONTEXT.attempt
            if result.outputs["runs"] > 1:
                break
            await until_ready(pool)


async def test_code_that_may_reach_the_network_is_not_loaded_before_its_call(
    call: Caller, pool: PooledBackend
) -> None:
    for code, runtime in ((PYTHON, "python"), (NODE, "node")):
        request = call.request(code, runtime=runtime, network=("example.org",))  # type: ignore[arg-type]
        await warm(call, pool, request)
        outputs = await hit(call, pool, request)
        assert outputs["waited"] < (0.25 if runtime == "python" else 250)


async def test_an_error_of_the_import_is_told_to_each_call(
    call: Caller, pool: PooledBackend
) -> None:
    request = call.request("raise RuntimeError('no config')")
    for _ in range(4):
        result = await call.run(request, {})
        assert result.outcome is Outcome.ERROR
        assert result.error_code == "load"
        assert "no config" in (result.error or "")
        await until_ready(pool, 0)


async def test_a_package_that_dies_while_it_waits_is_told_so_when_it_is_called(
    call: Caller, pool: PooledBackend
) -> None:
    request = call.request("import os\nos._exit(7)")
    for _ in range(8):
        result = await call.run(request, {})
        assert result.outcome is Outcome.ERROR, result
        assert result.error == "the handler ended without an answer: it exited with code 7"


async def test_none_is_handed_out_after_the_zygote_was_killed(
    call: Caller, pool: PooledBackend, kernel: NamespaceBackend
) -> None:
    request = call.request(PYTHON)
    await warm(call, pool, request)
    await until_ready(pool, 2)
    assert kernel.zygote_pid is not None
    zygote = os.pidfd_open(kernel.zygote_pid)
    os.kill(kernel.zygote_pid, signal.SIGKILL)
    select.select([zygote], [], [])
    os.close(zygote)
    async with asyncio.timeout(30):
        # Nothing tells the loop yet: the pool asks the kernel by itself.
        assert (await call.run(request, {})).outcome is Outcome.OK


async def test_memory_of_an_idle_sandbox_counts(call: Caller, kernel: NamespaceBackend) -> None:
    request = call.request("held = bytearray(32 << 20)\ndef handler(inputs): return {}")
    sandbox = await kernel.prepare_ahead(request)
    try:
        async with asyncio.timeout(30):
            while sandbox.memory_bytes() < 32 << 20:  # noqa: ASYNC110 - the guest's doing
                await asyncio.sleep(0.01)
        assert sandbox.memory_bytes() < 64 << 20
        assert sandbox.is_alive
    finally:
        await sandbox.destroy()
        await kernel.close()
    assert not sandbox.is_alive


async def test_memory_is_bounded_before_the_call_too(
    call: Caller, kernel: NamespaceBackend
) -> None:
    code = """
        import os, signal
        for _ in range(6):
            if os.fork() == 0:
                held = bytearray(b"x") * (48 << 20)
                while True:
                    signal.pause()
        while True:
            signal.pause()
    """
    bounds = limits(memory_bytes=128 * MEBIBYTE, timeout_seconds=60)
    sandbox = await kernel.prepare_ahead(call.request(code, limits=bounds))
    group = sandbox._parts.group
    try:
        # A group ends its processes one by one, and tells; the watchdog ends all of them.
        async with asyncio.timeout(30):
            while sandbox.is_alive and (group is None or group.oom_kills() == 0):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        result = await sandbox.call({}, CONTEXT, call.services)
    finally:
        await sandbox.destroy()
        await kernel.close()
    assert result.outcome is Outcome.OOM, result
    assert result.usage.wall_ms < 30_000


async def test_many_at_once_each_get_one_of_their_own(call: Caller, pool: PooledBackend) -> None:
    request = call.request(
        """
        import os
        def handler(inputs):
            with open("/tmp/seen", "x"):
                return {"number": inputs["number"]}
        """,
        limits=limits(timeout_seconds=60),
    )

    async def one(number: int) -> None:
        result = await call.run(request, {"number": number})
        assert result.outputs == {"number": number}, result

    places = asyncio.Semaphore(4)

    async def bounded(number: int) -> None:
        async with places:
            await one(number)

    await asyncio.gather(*(bounded(number) for number in range(40)))


async def until_blank(kernel: NamespaceBackend, count: int = 1) -> None:
    async with asyncio.timeout(30):
        while kernel.blanks.ready < count:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)


async def test_a_first_call_binds_a_sandbox_that_was_there_before(
    call: Caller, kernel: NamespaceBackend, tmp_path: Path
) -> None:
    assert (await call(PYTHON)).outcome is Outcome.OK
    await until_blank(kernel, 2)
    given = tmp_path / "given.txt"
    given.write_text("G")
    code = (
        "import os\ndef handler(i): return [open('/inputs/g').read(), sorted(os.listdir('/tmp'))]"
    )
    request = call.request(code, inputs=(InputMount("g", given),), limits=limits(processes=7))
    ready = kernel.blanks.ready
    assert kernel.zygote_pid is not None
    there = children(kernel.zygote_pid)
    sandbox = await kernel.prepare(request)
    assert kernel.blanks.ready == ready - 1
    assert {sandbox.init_pid, *sandbox.processes()} <= there
    result = await sandbox.call({}, CONTEXT, call.services)
    assert result.outputs == ["G", []]
    await sandbox.destroy()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_a_blank_is_not_used_for_files_that_it_was_not_made_for(
    call: Caller, kernel: NamespaceBackend
) -> None:
    assert (await call(PYTHON)).outcome is Outcome.OK
    await until_blank(kernel)
    request = call.request("def handler(i): return open('/package/main.py').read()[:3]")
    package = request.program.package
    for path in (package, package / "main.py"):
        os.chown(path, 4321, 4321)
        path.chmod(0o700)
    ready = kernel.blanks.ready
    result = await call.run(request, {})
    assert result.outputs == "def", result
    assert kernel.blanks.ready <= ready


async def test_no_blank_outlives_its_zygote_or_its_pool(
    call: Caller, kernel: NamespaceBackend, pool: PooledBackend
) -> None:
    assert (await call(PYTHON)).outcome is Outcome.OK
    await until_blank(kernel, 2)
    zygote = kernel.zygote_pid
    assert zygote is not None
    below = children(zygote)
    os.kill(zygote, signal.SIGKILL)
    async with asyncio.timeout(30):
        while any(Path(f"/proc/{pid}").exists() for pid in below):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert (await call(PYTHON)).outcome is Outcome.OK
    await until_blank(kernel, 2)
    assert kernel.zygote_pid is not None
    below = {kernel.zygote_pid, *children(kernel.zygote_pid)}
    await pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
