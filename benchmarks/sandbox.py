"""What isolation costs: `make bench`.

One run of this program compares, on this machine and taking turns, so that whatever else it does
hits all alike: a plain `python -I`, bubblewrap around it (where there is one), a sandbox built when
it is called, and one from the pool. Latency is from the call to its reply; every Swarm row takes a
sandbox of its own for each call. On a machine with other work, compare rows, not figures.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import Settings, load_settings
from swarm.sandbox.interpreters import find_node, python_program
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.linux.watchdog import memory_of
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import (
    CallContext,
    Limits,
    Outcome,
    Program,
    SandboxBackend,
    SandboxRequest,
)

MEBIBYTE = 1024 * 1024
CODE = "import json"
PYTHON_HANDLER = "def handler(inputs):\n    return {}\n"
NODE_HANDLER = "export function handler() { return {}; }\n"
CONTEXT = CallContext("inv_bench", "key_bench", "bench", "1.0.0")
SETTLE_SECONDS = 0.02
"""Pause before each sample, in which what the last one left to others is done."""

Sample = Callable[[], Awaitable[None]]


class Silent:
    """The host's side of a call that asks nothing."""

    def log(self, stream: str, level: str, message: str) -> None: ...

    def progress(self, fraction: float | None, message: str) -> None: ...

    def event(self, value: JsonValue) -> None: ...

    async def request(self, method: str, params: JsonObject) -> JsonValue: ...


def say(label: str, figure: str) -> None:
    sys.stdout.write(f"{label:<50} {figure}\n")
    sys.stdout.flush()


def request_of(folder: Path, runtime: str) -> SandboxRequest:
    """A package whose handler does nothing."""
    is_node = runtime == "node"
    name, text = ("main.mjs", NODE_HANDLER) if is_node else ("main.py", PYTHON_HANDLER)
    package = folder / runtime
    package.mkdir()
    (package / name).write_text(text)
    program = Program("node" if is_node else "python", (name,), package, f"bench-{runtime}")
    return SandboxRequest(program, Limits(memory_bytes=256 * MEBIBYTE, timeout_seconds=60))


async def invoke(backend: SandboxBackend, request: SandboxRequest) -> None:
    """One invocation, up to its reply and the destruction of its sandbox."""
    sandbox = await backend.prepare(request)
    try:
        result = await sandbox.call({}, CONTEXT, Silent())
    finally:
        await sandbox.destroy()
    if result.outcome is not Outcome.OK:
        raise RuntimeError(f"{result.outcome}: {result.error}")


async def execute(command: Sequence[str]) -> None:
    """One process, up to its end."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait() != 0:
        raise RuntimeError(f"{command[0]} failed")


def bubblewrap(python: str) -> list[str] | None:
    """The command of bubblewrap's row, or None where there is none."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    walls = ["--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/"]
    places = ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    return [program, *walls, *places, python, "-I", "-c", CODE]


async def take_turns(
    rows: dict[str, Sample], pools: Sequence[PooledBackend], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each row's samples; each round takes one of every row."""
    found: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, sample in rows.items():
            for pool in pools:
                await until_ready(pool)
            await asyncio.sleep(SETTLE_SECONDS)
            start = time.perf_counter()
            await sample()
            found[name].append((time.perf_counter() - start) * 1000)
    return found


async def rate(sample: Sample, count: int, at_once: int) -> float:
    """Samples per second, with so many in flight."""
    places = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with places:
            await sample()

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - start)


def say_latency(name: str, samples: list[float], plain: float) -> None:
    ordered = sorted(samples)
    middle = statistics.median(ordered)
    last = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    say(name, f"{middle:8.2f} ms p50 {last:8.2f} ms p99   ({middle / plain:.2f} x plain)")


async def until_ready(pool: PooledBackend) -> None:
    """Until the pool has something: what is measured is a hit."""
    async with asyncio.timeout(60):
        while pool.ready == 0:  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0.002)


async def idle_memory(settings: Settings, request: SandboxRequest) -> float:
    """MiB of one sandbox that waits for its call, as its share of what it maps (PSS)."""
    kernel = NamespaceBackend(settings)
    sandbox = await kernel.prepare(request)
    await asyncio.sleep(1)  # Its package is imported meanwhile.
    used = sum(map(memory_of, sandbox.processes()))
    await sandbox.destroy()
    await kernel.close()
    return used / MEBIBYTE


async def measure(settings: Settings, folder: Path, rounds: int, count: int) -> None:
    """Print every row."""
    python = str(python_program().program)
    request = request_of(folder, "python")
    cold, pool, node_pool = backends = [
        PooledBackend(NamespaceBackend(each), each)
        for each in (settings.model_copy(update={"pool_ready_per_package": 0}), settings, settings)
    ]
    rows: dict[str, Sample] = {"plain python -I": lambda: execute([python, "-I", "-c", CODE])}
    if wrapped := bubblewrap(python):
        rows["bubblewrap + python -I"] = lambda: execute(wrapped)
    rows["sandbox, built when it is called"] = lambda: invoke(cold, request)
    rows["sandbox, from the pool"] = lambda: invoke(pool, request)
    timed, warm = dict(rows), [pool]
    if has_node(settings):
        node_request = request_of(folder, "node")
        timed["Node in a sandbox, from the pool"] = lambda: invoke(node_pool, node_request)
        warm.append(node_pool)
    for sample in timed.values():
        for _ in range(3):
            await sample()
    latencies = await take_turns(timed, warm, rounds)
    plain = statistics.median(next(iter(latencies.values())))
    for name, samples in latencies.items():
        say_latency(name, samples, plain)
    for at_once in (1, 2, 4):
        base = 0.0
        for name, sample in rows.items():
            found = await rate(sample, count, at_once)
            base = base or found
            ratio = found / base
            say(f"{name}, {at_once} at once", f"{found:8.0f} per second ({ratio:.2f} x plain)")
    for backend in backends:
        await backend.close()
    say("an idle sandbox, PSS", f"{await idle_memory(settings, request):8.1f} MiB")


def has_node(settings: Settings) -> bool:
    try:
        find_node(settings)
    except SandboxUnavailable:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="samples of each latency")
    parser.add_argument("--count", type=int, default=200, help="invocations of each rate")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="swarm-bench-") as name:
        folder = Path(name)
        settings = load_settings().model_copy(update={"home": folder / "home"})
        asyncio.run(measure(settings, folder, arguments.rounds, arguments.count))


if __name__ == "__main__":
    main()
