"""The work that every engine is given, and how it is timed; standard library only.

Each engine has a program here that is run in a process of its own, twice nested where a second
process starts a run. It is called as ``program FOLDER SIZES WORKS [ARGUMENT ...]`` and prints one
JSON object per work: ``{"work", "samples"}``, or ``{"work", "error"}``. All work passes a number
from step to step, one added by each, and is checked by it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

WORKS = ("chain", "runs", "fan", "first")
SHORT_RUN_STEPS = 5
WARM_UP_RUNS = 5
LIMIT_SECONDS = 120.0
"""What one work may take in all, of one engine."""
BETWEEN_SECONDS = 0.02
"""Pause before a run is asked for by another process, so that each finds the engine idle."""


@dataclass(frozen=True)
class Sizes:
    """How much of each work one process does."""

    chain: int
    """Steps of the chain."""
    chains: int
    """Chains, one after another; each gives one sample."""
    runs: int
    """Runs of ``SHORT_RUN_STEPS`` steps; together they give one sample."""
    concurrency: int
    """Of those, how many at once."""
    fan: int
    """Steps that do not wait for each other, with one behind them all."""
    fans: int
    first: int
    """Runs that another process asks for, one after another."""

    def as_json(self) -> str:
        return json.dumps(asdict(self))


class CannotBeMeasured(Exception):
    """Why an engine has no figure for a work."""


class Engine(Protocol):
    """One engine, ready."""

    async def chain(self, steps: int) -> int:
        """One run of a chain from 0; what its last step returned."""
        ...

    async def fan(self, width: int) -> int:
        """One run of ``width`` steps and one that joins them; how many it was given."""
        ...

    async def first_steps(self, count: int) -> list[float]:
        """Milliseconds from the call in another process to the begin of the run's first step, by
        the clock that processes share (CLOCK_MONOTONIC).

        Raises:
            CannotBeMeasured: it has no such thing.
        """
        ...


async def measure(engine: Engine, sizes: Sizes, works: list[str]) -> None:
    """Do ``works`` and tell the samples."""
    timers = {
        "chain": _chains,
        "runs": _runs,
        "fan": _fans,
        "first": _first_steps,
    }
    for work in works:
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                samples = await timers[work](engine, sizes)
        except TimeoutError:
            tell(work, error=f"not done within {LIMIT_SECONDS:g} s")
        except CannotBeMeasured as error:
            tell(work, error=str(error))
        except Exception as error:  # noqa: BLE001  whatever an engine raises is its answer
            tell(work, error=f"{type(error).__name__}: {error}".splitlines()[0])
        else:
            tell(work, samples=samples)


def tell(work: str, **content: Any) -> None:
    sys.stdout.write(json.dumps({"work": work, **content}) + "\n")
    sys.stdout.flush()


async def first_steps_of(program: str, *arguments: str) -> list[float]:
    """What another process, ``program`` in its role as a client, measured and printed."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, program, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await client.communicate()
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    if client.returncode != 0:
        raise CannotBeMeasured(f"the process that asks for runs ended with {client.returncode}")
    samples: list[float] = json.loads(output.splitlines()[-1])
    return samples


def milliseconds_since(asked: int, began: int) -> float:
    return (began - asked) / 1e6


def arguments() -> tuple[Path, Sizes, list[str], list[str]]:
    """What this program was called with."""
    folder, sizes, works, *rest = sys.argv[1:]
    return Path(folder), Sizes(**json.loads(sizes)), works.split(","), rest


async def _chains(engine: Engine, sizes: Sizes) -> list[float]:
    """Milliseconds per step."""
    await _checked_chain(engine, sizes.chain)
    samples = []
    for _ in range(sizes.chains):
        start = time.perf_counter()
        await _checked_chain(engine, sizes.chain)
        samples.append((time.perf_counter() - start) * 1000 / sizes.chain)
    return samples


async def _runs(engine: Engine, sizes: Sizes) -> list[float]:
    """Steps per second, one sample."""
    places = asyncio.Semaphore(sizes.concurrency)

    async def run() -> None:
        async with places:
            await _checked_chain(engine, SHORT_RUN_STEPS)

    await asyncio.gather(*(run() for _ in range(WARM_UP_RUNS)))
    start = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(sizes.runs)))
    return [sizes.runs * SHORT_RUN_STEPS / (time.perf_counter() - start)]


async def _fans(engine: Engine, sizes: Sizes) -> list[float]:
    """Milliseconds."""
    samples = []
    for _ in range(sizes.fans + 1):
        start = time.perf_counter()
        joined = await engine.fan(sizes.fan)
        samples.append((time.perf_counter() - start) * 1000)
        if joined != sizes.fan:
            raise CannotBeMeasured(f"it joined {joined} steps of {sizes.fan}")
    return samples[1:]


async def _first_steps(engine: Engine, sizes: Sizes) -> list[float]:
    return await engine.first_steps(sizes.first)


async def _checked_chain(engine: Engine, steps: int) -> None:
    found = await engine.chain(steps)
    if found != steps:
        raise CannotBeMeasured(f"a chain of {steps} steps ended with {found}")
