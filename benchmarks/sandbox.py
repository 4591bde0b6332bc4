"""What isolation costs: `make bench`.

One run of this program compares, on this machine and taking turns, so that whatever else it does
hits all alike: a plain `python -I`, bubblewrap around it (where there is one), a sandbox built when
it is called, one that no package was bound to before (a package's first call), and one from the
pool. Latency is from the call to its reply; every row of a sandbox takes one of its own for each
call, and its rate pays for those that the pool builds ahead. On a machine with other work, compare
rows, and the processor time, which counts what the sandbox's processes, its zygote and its host use
(but not what the kernel does on its own threads).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from swarm.kernel.configuration import load_settings
from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import Settings
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

IDLE_SANDBOXES = 8
"""As many as are looked at when they wait together."""

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
    package.mkdir(exist_ok=True)
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


@dataclass(frozen=True)
class Row:
    """One way to run a program or a handler."""

    name: str
    sample: Sample
    kernel: NamespaceBackend | None = None
    ready: Callable[[], int] | None = None
    """How many sandboxes wait for what is measured."""
    has_rate: bool = True
    has_cpu: bool = True
    """Whether its processes are all waited for, so that their processor time is told."""

    async def settle(self) -> None:
        """Wait until what is measured next can be a hit."""
        async with asyncio.timeout(60):
            while self.ready is not None and self.ready() == 0:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.002)
        await asyncio.sleep(SETTLE_SECONDS)

    def cpu_seconds(self) -> float:
        """Processor time so far: of this process, of those that it waited for, and of the zygote
        with all its sandboxes."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = own.ru_utime + own.ru_stime + reaped.ru_utime + reaped.ru_stime
        if self.kernel is not None and self.kernel.zygote_pid is not None:
            text = Path(f"/proc/{self.kernel.zygote_pid}/stat").read_text()
            fields = text.rpartition(")")[2].split()
            seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        return seconds


async def take_turns(rows: Sequence[Row], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each row's samples; each round takes one of every row."""
    found: dict[str, list[float]] = {row.name: [] for row in rows}
    for _ in range(rounds):
        for row in rows:
            await row.settle()
            start = time.perf_counter()
            await row.sample()
            found[row.name].append((time.perf_counter() - start) * 1000)
    return found


async def rate(row: Row, seconds: float, at_once: int) -> tuple[float, float]:
    """Samples per second for so long with so many in flight, and processor milliseconds of each.

    What a pool had ready at the start is soon gone: it has to keep up.
    """
    start, used = time.perf_counter(), row.cpu_seconds()

    async def go_on() -> int:
        count = 0
        while time.perf_counter() - start < seconds:
            await row.sample()
            count += 1
        return count

    count = sum(await asyncio.gather(*(go_on() for _ in range(at_once))))
    took = time.perf_counter() - start
    await asyncio.sleep(SETTLE_SECONDS * 5)  # The last ones are taken down meanwhile.
    return count / took, (row.cpu_seconds() - used) * 1000 / count


def say_latency(name: str, samples: list[float], plain: float) -> None:
    ordered = sorted(samples)
    middle = statistics.median(ordered)
    last = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    text = f"{ordered[0]:8.2f} least {middle:8.2f} p50 {last:8.2f} p99   ({middle / plain:.2f} x)"
    say(f"{name}, ms", text)


async def say_idle_memory(settings: Settings, request: SandboxRequest) -> None:
    """What sandboxes that wait for their call occupy, as their share of what they map (PSS)."""
    kernel = NamespaceBackend(settings)
    sandboxes = [await kernel.prepare(request)]
    await asyncio.sleep(1)  # Its package is imported meanwhile.
    alone = sum(map(memory_of, sandboxes[0].processes()))
    assert kernel.zygote_pid is not None
    one = memory_of(kernel.zygote_pid) + alone
    while len(sandboxes) < IDLE_SANDBOXES:
        sandboxes.append(await kernel.prepare(request))
    await asyncio.sleep(1)
    shares = [sum(map(memory_of, each.processes())) for each in sandboxes]
    added = (memory_of(kernel.zygote_pid) + sum(shares) - one) / (IDLE_SANDBOXES - 1)
    say("idle sandbox, alone beside its zygote, PSS", f"{alone / MEBIBYTE:8.1f} MiB")
    say(
        f"idle sandbox, one of {IDLE_SANDBOXES}, PSS",
        f"{sum(shares) / IDLE_SANDBOXES / MEBIBYTE:8.1f} MiB, each adds {added / MEBIBYTE:.1f} MiB",
    )
    for sandbox in sandboxes:
        await sandbox.destroy()
    await kernel.close()


def rows_of(settings: Settings, folder: Path) -> tuple[list[Row], list[PooledBackend]]:
    """Every row, and what is to be closed; the first row is what the others are compared with."""
    python = str(python_program().program)
    rows = [Row("plain python -I", lambda: execute([python, "-I", "-c", CODE]))]
    if wrapped := bubblewrap(python):
        rows.append(Row("bubblewrap + python -I", lambda: execute(wrapped), has_cpu=False))
    pools = []
    for runtime in ("python", "node") if has_node(settings) else ("python",):
        found, made = sandbox_rows(settings, request_of(folder, runtime))
        rows += found
        pools += made
    return rows, pools


def sandbox_rows(
    settings: Settings, request: SandboxRequest
) -> tuple[list[Row], list[PooledBackend]]:
    """Built when it is called; the first call of a package, bound to a blank; from the pool."""
    never = replace(settings, pool_ready_per_package=0)
    numbers = itertools.count()
    cold, blank, warm = kernels = [NamespaceBackend(each) for each in (never, settings, settings)]
    made = [
        PooledBackend(kernel, each)
        for kernel, each in zip(kernels, (never, settings, settings), strict=True)
    ]
    cold_pool, blank_pool, pool = made

    async def call_first() -> None:
        program = replace(request.program, digest=f"bench-{next(numbers)}")
        await invoke(blank_pool, replace(request, program=program))

    name, has_rate = request.program.runtime, request.program.runtime == "python"
    rows = [
        Row(f"{name}, cold sandbox", lambda: invoke(cold_pool, request), cold, None, has_rate),
        Row(f"{name}, blank sandbox", call_first, blank, lambda: blank.blanks.ready, False),
        Row(
            f"{name}, pooled sandbox",
            lambda: invoke(pool, request),
            warm,
            lambda: pool.ready,
            has_rate,
        ),
    ]
    return rows, made


async def measure(settings: Settings, folder: Path, rounds: int, seconds: float) -> None:
    """Print every row."""
    rows, pools = rows_of(settings, folder)
    for row in rows:
        for _ in range(3):
            await row.sample()
    latencies = await take_turns(rows, rounds)
    plain = statistics.median(latencies[rows[0].name])
    for name, samples in latencies.items():
        say_latency(name, samples, plain)
    for at_once in (1, 2, 4):
        base = 0.0
        for row in filter(lambda row: row.has_rate, rows):
            found, cpu = await rate(row, seconds, at_once)
            base = base or found
            used = f", {cpu:.2f} ms of processors each" if row.has_cpu else ""
            figure = f"{found:8.0f} per second ({found / base:.2f} x){used}"
            say(f"{row.name}, {at_once} at once", figure)
    for pool in pools:
        await pool.close()
    await say_idle_memory(settings, request_of(folder, "python"))


def has_node(settings: Settings) -> bool:
    try:
        find_node(settings)
    except SandboxUnavailable:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="samples of each latency")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each rate is taken")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="swarm-bench-") as name:
        folder = Path(name)
        settings = replace(load_settings(), home=folder / "home")
        asyncio.run(measure(settings, folder, arguments.rounds, arguments.seconds))


if __name__ == "__main__":
    main()
