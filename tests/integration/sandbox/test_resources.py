"""What one invocation may use, and that nothing of it is left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from pathlib import Path

import pytest

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.linux.cgroups import find_tree
from swarm.sandbox.ports import Outcome
from tests.contract.sandbox.calling import CONTEXT, MEBIBYTE, Caller, RecordingServices, limits
from tests.contract.sandbox.groups import below

EAT = "def handler(i):\n    kept = []\n    while True: kept.append(bytearray(4 << 20))\n"
EAT_IN_NODE = (
    "export function handler() { const kept = []; for (;;) kept.push(Buffer.alloc(4 << 20, 1)); }"
)


async def test_a_handler_that_eats_memory_is_out_of_memory(call: Caller) -> None:
    result = await call(EAT, limits=limits(memory_bytes=64 * MEBIBYTE))
    assert (result.outcome, result.error_code) == (Outcome.OOM, "oom")
    assert result.error == "the handler needed more than its 64 MiB of memory (/tmp counts too)"


async def test_node_that_eats_memory_is_out_of_memory(call: Caller) -> None:
    result = await call(EAT_IN_NODE, runtime="node", limits=limits(memory_bytes=128 * MEBIBYTE))
    assert result.outcome is Outcome.OOM, result


async def test_children_that_eat_memory_together_are_out_of_memory(call: Caller) -> None:
    code = """
        import os, time
        def handler(i):
            for _ in range(8):
                if os.fork() == 0:
                    kept = bytearray(20 << 20)
                    time.sleep(60)
            time.sleep(60)
    """
    result = await call(code, limits=limits(memory_bytes=96 * MEBIBYTE, timeout_seconds=20))
    assert result.outcome is Outcome.OOM, result


async def test_a_fork_bomb_stays_small_and_goes(call: Caller) -> None:
    code = """
        import os, time
        def handler(i):
            count = 0
            while True:
                try:
                    if os.fork() == 0:
                        time.sleep(1000)
                except OSError as error:
                    return {"count": count, "errno": error.errno}
                count += 1
    """
    before = processes()
    result = await call(code, limits=limits(processes=20))
    assert result.outputs == {"count": 19, "errno": 11}, result
    assert processes() - before <= zygote_processes(call)


async def test_a_daemon_does_not_outlive_the_call(call: Caller) -> None:
    code = """
        import os, signal, time
        def handler(i):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    for number in range(1, 32):
                        try: signal.signal(number, signal.SIG_IGN)
                        except OSError: pass
                    time.sleep(1000)
                os._exit(0)
            os.wait()
            return {}
    """
    before = processes()
    result = await call(code)
    assert result.outcome is Outcome.OK
    assert processes() - before <= zygote_processes(call)


@pytest.mark.parametrize("path", ["/tmp", "/outputs"])
async def test_folders_are_bounded(call: Caller, path: str) -> None:
    code = f"""
        def handler(i):
            written = 0
            try:
                with open("{path}/big", "wb", buffering=0) as file:
                    while True: written += file.write(bytes(1 << 20))
            except OSError as error:
                return {{"written": written, "errno": error.errno}}
    """
    small = limits(work_bytes=8 * MEBIBYTE, output_files_bytes=8 * MEBIBYTE)
    result = await call(code, limits=small)
    assert result.outputs["errno"] in (28, 27)  # ENOSPC, or EFBIG where both are the same size
    assert 7 * MEBIBYTE <= result.outputs["written"] <= 8 * MEBIBYTE


async def test_files_are_counted(call: Caller) -> None:
    code = """
        def handler(i):
            for n in range(10_000):
                try: open(f"/tmp/{n}", "w").close()
                except OSError as error: return {"n": n, "errno": error.errno}
    """
    result = await call(code, limits=limits(work_files=100))
    assert result.outputs["errno"] == 28
    assert result.outputs["n"] < 100


async def test_a_gigabyte_of_logs_is_swallowed(call: Caller) -> None:
    code = """
        import os
        def handler(i):
            block = (b"x" * 127 + b"\\n") * 8192
            for _ in range(1024): os.write(1, block)
            return {}
    """
    result = await call(code, limits=limits(log_bytes=100_000))
    assert result.outcome is Outcome.OK
    assert result.usage.log_bytes == 1024**3
    assert sum(len(message) for _, _, message in call.services.lines) < 110_000


async def test_usage_is_measured(call: Caller) -> None:
    code = """
        import time
        def handler(i):
            kept = bytearray(40 << 20)
            end = time.process_time() + 0.2
            while time.process_time() < end: pass
            if i["hang"]: time.sleep(1000)
            return {}
    """
    for hang in (False, True):
        result = await call(code, {"hang": hang}, limits=limits(timeout_seconds=4 if hang else 60))
        assert result.outcome is (Outcome.TIMEOUT if hang else Outcome.OK)
        assert 190 <= result.usage.cpu_ms <= 3000
        assert result.usage.wall_ms >= 200
        assert result.usage.peak_memory_bytes >= 40 * MEBIBYTE


async def test_nothing_is_left_after_many_calls(call: Caller) -> None:
    request = call.request("def handler(i): return {}", network=("example.com",))
    await call.run(request, {})
    tree = find_tree()
    if tree is not None:
        tree.close()
    before = (processes(), mounts(), below(os.getpid()))
    zygote = call_zygote(call)
    outside, inside = descriptors(), descriptors(zygote)
    for _ in range(20):
        await call.run(request, {})
    assert (processes(), mounts(), below(os.getpid())) == before
    # Fewer is fine: what an earlier test left is closed when its other end notices.
    assert descriptors() <= outside
    assert descriptors(zygote) == inside


async def test_a_preparation_that_is_cancelled_leaves_nothing(call: Caller) -> None:
    request = call.request("def handler(i): return {}")
    await call.run(request, {})
    before, open_before = (processes(), below(os.getpid())), descriptors()
    for steps in range(60):
        task = asyncio.create_task(call.backend.prepare(request))
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.done():
            await task.result().destroy()
            continue
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(30):
        # What was cancelled before it had a plan ends by itself, in its own time.
        while (processes(), below(os.getpid())) != before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert descriptors() <= open_before


async def test_an_answer_counts_though_the_end_is_heard_first(call: Caller) -> None:
    """A busy host learns that a sandbox has ended before it has read what was sent from it."""
    code = """
        import json, os
        LINE = {"jsonrpc": "2.0", "method": "log", "params": {"level": "info", "message": "x"}}
        FRAME = json.dumps(LINE).encode()
        def handler(i, context):
            # In one piece, which fits in the socket: more than the host reads at one go.
            os.write(int(os.environ["SWARM_WIRE_FD"]),
                     (len(FRAME).to_bytes(4, "big") + FRAME) * 1000)
            return {"a": 1}
    """
    sandbox = await call.backend.prepare(call.request(code))
    backend = call.backend
    assert isinstance(backend, NamespaceBackend)
    assert backend._zygote is not None
    control = backend._zygote._control

    class BusyServices(RecordingServices):
        def log(self, stream: str, level: str, message: str) -> None:
            if not self.lines:
                select.select([control], [], [])  # Until the zygote has told the end.
            self.lines.append((stream, level, message))

    result = await sandbox.call({}, CONTEXT, BusyServices())
    await sandbox.destroy()
    assert (result.outcome, result.outputs) == (Outcome.OK, {"a": 1}), result


async def test_many_sandboxes_at_once(call: Caller) -> None:
    request = call.request("import os\ndef handler(i): return {'n': i['n'], 'u': os.getuid()}")
    results = await asyncio.gather(*(call.run(request, {"n": n}) for n in range(16)))
    assert [result.outputs["n"] for result in results] == list(range(16))


async def test_the_zygote_dies_and_the_next_call_gets_another(call: Caller) -> None:
    code = """
        import time
        def handler(i, context):
            if i["hang"]:
                context.log.info("here")
                time.sleep(1000)
            return {}
    """
    request = call.request(code)
    sandbox = await call.backend.prepare(request)
    task = asyncio.create_task(sandbox.call({"hang": True}, CONTEXT, call.services))
    await call.services.logged.wait()
    first = call_zygote(call)
    os.kill(first, 9)
    result = await task
    assert (result.outcome, result.error_code) == (Outcome.KILLED, "killed")
    await sandbox.destroy()
    assert (await call.run(request, {"hang": False})).outcome is Outcome.OK
    assert call_zygote(call) != first


async def test_a_sandbox_killed_from_outside_is_killed(call: Caller) -> None:
    code = """
        import time
        def handler(i, context):
            context.log.info("here")
            time.sleep(1000)
    """
    sandbox = await call.backend.prepare(call.request(code))
    task = asyncio.create_task(sandbox.call({}, CONTEXT, call.services))
    await call.services.logged.wait()
    os.kill(sandbox.init_pid, 9)
    result = await task
    assert (result.outcome, result.error_code) == (Outcome.KILLED, "killed")
    assert "SIGKILL" in str(result.error)
    await sandbox.destroy()


async def test_closing_the_backend_ends_what_runs(call: Caller) -> None:
    code = """
        import time
        def handler(i, context):
            context.log.info("here")
            time.sleep(1000)
    """
    before = processes()
    sandbox = await call.backend.prepare(call.request(code))
    task = asyncio.create_task(sandbox.call({}, CONTEXT, call.services))
    await call.services.logged.wait()
    await call.backend.close()
    await task
    assert processes() <= before


async def test_locks_are_held_until_the_last_sandbox_is_gone(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    backend = NamespaceBackend(Settings(home=tmp_path / "home"), lock_descriptors=[lock])
    call = Caller(tmp_path, backend)
    code = """
        import os
        def handler(i):
            return {"open": sorted(os.listdir("/proc/self/fd"))}
    """
    sandbox = await backend.prepare(call.request(code))
    holders = {pid for pid in processes() if str(tmp_path / "lock") in opened(pid)}
    assert holders == {os.getpid(), call_zygote(call), sandbox.init_pid}
    result = await sandbox.call({}, CONTEXT, call.services)
    assert set(result.outputs["open"]) <= {"0", "1", "2", "3", "4"}
    await sandbox.destroy()
    await backend.close()
    os.close(lock)


async def test_a_cgroup_can_be_required(tmp_path: Path) -> None:
    tree = find_tree()
    if tree is not None:
        tree.close()
        pytest.skip("cgroups can be made here")
    backend = NamespaceBackend(Settings(home=tmp_path / "home", require_cgroup=True))
    with pytest.raises(SandboxUnavailable, match="no cgroup"):
        await backend.prepare(Caller(tmp_path, backend).request("def handler(i): pass"))
    await backend.close()


def zygote_processes(call: Caller) -> set[int]:
    """The zygote and, where an ordinary user's is in a pid namespace, what waits for its end."""
    zygote = call_zygote(call)
    parent = int(Path(f"/proc/{zygote}/stat").read_text().rpartition(")")[2].split()[1])
    return {zygote} if parent == os.getpid() else {zygote, parent}


def call_zygote(call: Caller) -> int:
    backend = call.backend
    assert isinstance(backend, NamespaceBackend)
    pid = backend.zygote_pid
    assert pid is not None
    return pid


def processes() -> set[int]:
    """Living processes of this user that descend from this one."""
    found = [os.getpid()]
    for pid in found:
        found += children(pid)
    return set(found)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return list(map(int, text.split()))


def descriptors(pid: int | str = "self") -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def opened(pid: int) -> list[str]:
    found = []
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:  # Only root may look at an init.
        return []
    for link in links:
        with contextlib.suppress(FileNotFoundError):  # It was closed meanwhile.
            found.append(str(link.readlink()))
    return found


def mounts() -> list[str]:
    """All mounts here, without the disks that tests of other processes have for themselves."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if "/swarm-disk-" not in line]
