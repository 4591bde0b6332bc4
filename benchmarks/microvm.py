"""Measure virtual machines: from a snapshot to the reply, and the processor time that it takes.

usage: python benchmarks/microvm.py [--count N] [--home FOLDER]

Needs QEMU, squashfs-tools and an image (`swarm sandbox build-image`). The first invocation of each
runtime boots a machine and is not counted. `prepare` is the restore up to a loading handler; `call`
is from there to the reply, with the machine gone.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from swarm.bootstrap.backends import machine_pool
from swarm.kernel.configuration import load_settings
from swarm.kernel.errors import SwarmError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import Settings
from swarm.sandbox.microvm.backend import MicrovmBackend
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import (
    CallContext,
    Limits,
    Outcome,
    Program,
    SandboxBackend,
    SandboxRequest,
)

LIMITS = Limits(memory_bytes=128 * 1024 * 1024, timeout_seconds=120)
CONTEXT = CallContext("inv_bench", "key_bench", "bench", "1.0.0")
HANDLERS: dict[Literal["python", "node"], tuple[str, str]] = {
    "python": ("main.py", "def handler(inputs):\n    return inputs\n"),
    "node": ("main.mjs", "export const handler = (inputs) => inputs;\n"),
}


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class NoServices:
    """A handler that asks for nothing."""

    def log(self, stream: str, level: str, message: str) -> None:
        say(f"  {stream}: {message}")

    def progress(self, fraction: float | None, message: str) -> None: ...

    def event(self, value: JsonValue) -> None: ...

    async def request(self, method: str, params: JsonObject) -> JsonValue:
        raise SwarmError(f"nothing answers {method}")


@dataclass
class Sample:
    prepare_ms: float
    call_ms: float
    cpu_ms: float


async def measure(backend: SandboxBackend, request: SandboxRequest) -> Sample:
    started = time.perf_counter()
    sandbox = await backend.prepare(request)
    ready = time.perf_counter()
    result = await sandbox.call({"n": 1}, CONTEXT, NoServices())
    ended = time.perf_counter()
    await sandbox.destroy()
    if result.outcome is not Outcome.OK:
        raise SystemExit(f"the handler failed: {result.error}")
    return Sample((ready - started) * 1000, (ended - ready) * 1000, result.usage.cpu_ms)


def line(name: str, values: Sequence[float]) -> str:
    cut = statistics.quantiles(values, n=100, method="inclusive")
    return f"  {name:<28} p50 {cut[49]:7.1f}   p99 {cut[98]:7.1f} ms"


async def report(name: str, settings: Settings, request: SandboxRequest, count: int) -> None:
    backend = PooledBackend(MicrovmBackend(settings), machine_pool(settings))
    first = await measure(backend, request)
    await measure(backend, request)
    samples = []
    for _ in range(count):
        while settings.microvm_warm_machines and not backend.ready:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)  # Let what waits load its package, as it does between calls.
        samples.append(await measure(backend, request))
    await backend.close()
    say(f"{name} (first: {first.prepare_ms + first.call_ms:.0f} ms)")
    say(line("to the result", [s.prepare_ms + s.call_ms for s in samples]))
    say(line("  of that, prepare", [s.prepare_ms for s in samples]))
    say(line("  of that, call", [s.call_ms for s in samples]))
    say(line("processor time", [s.cpu_ms for s in samples]))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    home = {} if arguments.home is None else {"SWARM_HOME": str(arguments.home)}
    settings = load_settings({**os.environ, **home})
    say(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        for runtime, (entry, code) in HANDLERS.items():
            package = Path(folder, runtime)
            package.mkdir()
            (package / entry).write_text(code)
            digest = hashlib.sha256(code.encode()).hexdigest()
            request = SandboxRequest(Program(runtime, (entry,), package, digest), LIMITS)
            cold = replace(settings, microvm_warm_machines=0)
            await report(f"{runtime}, from a snapshot", cold, request, arguments.count)
            await report(f"{runtime}, restored ahead", settings, request, arguments.count)


if __name__ == "__main__":
    asyncio.run(main())
