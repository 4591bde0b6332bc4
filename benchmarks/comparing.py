"""What the benchmarks of engines share: what is found of each, and how it is told and kept."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "engines"
LEAVE_SECONDS = 10.0
"""How long an engine may take to end when it is told to."""


@dataclass(frozen=True)
class Engine:
    """One row of the tables."""

    name: str
    title: str
    program: str
    arguments: tuple[str, ...]
    works: tuple[str, ...]
    is_peer: bool = False
    """Whether it runs with the environment that other engines were installed into."""
    durability: str = ""
    """What of a step is durable when it has ended, if that differs between engines."""


@dataclass
class Found:
    """What was found of one engine doing one work."""

    samples: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        figures = {"p50": middle(self.samples), "p99": late(self.samples)} if self.samples else {}
        return {**asdict(self), **figures}


Results = dict[str, dict[str, Found]]
"""By work, then by row: an engine, or one with a number of workers."""


def middle(samples: list[float]) -> float:
    return statistics.median(samples)


def late(samples: list[float]) -> float:
    """The 99th percentile: with few samples, the largest."""
    return sorted(samples)[min(len(samples) - 1, len(samples) * 99 // 100)]


def take_down(output: bytes, engine: Engine, results: Results) -> set[str]:
    """Note what a program printed; return the works that it told of."""
    told = set()
    for line in output.splitlines():
        if not line.startswith(b'{"work"'):
            continue
        document = json.loads(line)
        found = results[document["work"]][engine.name]
        found.samples += document.get("samples", [])
        for name, notes in (("error", found.errors), ("note", found.notes)):
            if name in document and document[name] not in notes:
                notes.append(document[name])
        told.add(document["work"])
    return told


async def end(process: asyncio.subprocess.Process) -> None:
    """Leave nothing of a program: it leads a session of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await process.wait()
        except TimeoutError:
            continue


def row(found: Found, floor: list[float], *, is_rate: bool) -> str:
    """The figures, or why there are none; of a rate, the p99 is that of the slowest."""
    if not found.samples:
        return f"not measured: {'; '.join(found.errors) or 'it told nothing'}"
    p50 = middle(found.samples)
    p99 = min(found.samples) if is_rate else late(found.samples)
    digits = 0 if is_rate else 2
    ratio = ""
    if floor:
        base = middle(floor)
        ratio = f"{base / p50 if is_rate else p50 / base:.1f}"
    text = f"{p50:>10,.{digits}f} {p99:>10,.{digits}f} {ratio:>8}  {len(found.samples)}"
    doubts = [*found.errors, *found.notes]
    return f"{text}  unreliable: {'; '.join(doubts)}" if doubts else text


def say_row(title: str, found: Found, floor: list[float], *, is_rate: bool) -> None:
    say(f"  {title:<34} {row(found, floor, is_rate=is_rate)}")


def say_heading(title: str, unit: str) -> None:
    say(f"\n{title}, {unit}")
    say(f"  {'':<34} {'p50':>10} {'p99':>10} {'x floor':>8}  samples")


def keep(
    file: Path | None, engines: Iterable[Engine], sizes: Mapping[str, Any], results: Results
) -> None:
    """Write every sample to ``file``, if there is one, in place of what it held."""
    if file is None:
        return
    document = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "sizes": sizes,
        "engines": {engine.name: asdict(engine) for engine in engines},
        "results": {
            work: {name: found.as_json() for name, found in rows.items()}
            for work, rows in results.items()
        },
    }
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(document, indent=1))
    partial.replace(file)


def chosen(
    parser: argparse.ArgumentParser, engines: Sequence[Engine], names: str, peers: str
) -> list[Engine]:
    """The engines that the command line names; it ends with a message if that cannot be."""
    wanted = names.split(",")
    if unknown := set(wanted) - {engine.name for engine in engines}:
        parser.error(f"no such engine: {', '.join(sorted(unknown))}")
    found = [engine for engine in engines if engine.name in wanted]
    if not peers and any(engine.is_peer for engine in found):
        parser.error("--peers is needed for other engines; the target of `make` gives it")
    return found


def run_to_end(measuring: Coroutine[Any, Any, None], told: Callable[[], None]) -> None:
    """Run ``measuring``, and tell what was found even if SIGINT or SIGTERM cuts it short.

    Raises:
        SystemExit: something needed is not there; nothing was found.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(measuring)
    except KeyboardInterrupt:
        progress("interrupted: this is what was found until then")
    except FileNotFoundError as error:
        progress(str(error))
        sys.exit(5)
    told()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
