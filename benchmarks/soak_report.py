"""What a soak says at its end."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING

from soak_load import Ended
from soak_rule import ALLOWED, WARM_UP, Judgement, percentile

if TYPE_CHECKING:
    from soak import Report

PARTS = ("warm-up", "middle", "last")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_report(report: Report) -> None:
    account, options = report.account, report.options
    capacity = "" if report.capacity is None else f" of {report.capacity:.1f}"
    say(
        f"\n{options.workers} workers, {report.rate:.1f}{capacity} runs/s for "
        f"{report.seconds / 60:.1f} minutes, retention {options.retention:g} s, "
        f"--seed {options.seed}"
    )
    kinds = ", ".join(f"{count} {name}" for name, count in account.kinds.most_common())
    say(f"{account.asked} runs asked for, {len(account.ended)} ended as they had to ({kinds})")
    for text in (*account.wrong, *report.failed_exits(), report.early):
        if text:
            say(f"  {text}")
    if report.samples and account.ended:
        say_latencies(report)
        say_use(report)
    say("\nwhat decides, of what came after the first third")
    say(f"  {'':<44}{'at the median':>16}{'found':>14}{'at most':>14}")
    judgements = report.judgements() if report.seconds else []
    told = [judgement for judgement in judgements if is_told(judgement)]
    for judgement in told:
        say("  " + line_of(judgement))
    say(f"  and {len(judgements) - len(told)} series that never were as large as what may be added")
    say(f"\nthe rule is {'kept' if report.is_kept else 'broken'}")


def is_told(judgement: Judgement) -> bool:
    """Small things that stay small are left out."""
    is_small = judgement.unit in ALLOWED and judgement.median < judgement.limit
    return not (is_small and judgement.is_kept)


def line_of(judgement: Judgement) -> str:
    is_bytes = judgement.unit in ("memory", "bytes")
    cells = [judgement.median, judgement.found, judgement.limit]
    texts = [f"{cell / 2**20:,.2f} MiB" if is_bytes else f"{cell:,.1f}" for cell in cells]
    if not judgement.median:
        texts[0] = ""
    mark = "" if judgement.is_kept else "  BROKEN"
    return f"{judgement.title:<44}{texts[0]:>16}{texts[1]:>14}{texts[2]:>14}{mark}"


def say_latencies(report: Report) -> None:
    """By the part of the soak in which runs were due, and over all by kind."""
    say("\nmilliseconds from when runs were due")
    head = "".join(f"{part + ' p50':>14}{'p99':>10}" for part in PARTS)
    say(f"  {'':<24}{head}")
    columns: list[tuple[str, Callable[[Ended], float], str | None]] = [
        ("until the first step", lambda run: run.start_ms, None),
        ("until the end, all", lambda run: run.end_ms, None),
        *(
            (f"until the end, {name}", lambda run: run.end_ms, name)
            for name in sorted(kinds_of(report))
        ),
    ]
    for title, value, kind in columns:
        cells = ""
        for number in range(3):
            found = [
                value(run) for run in part_of(report, number) if kind is None or run.kind == kind
            ]
            cells += (
                f"{percentile(found, 0.5):>14.1f}{percentile(found, 0.99):>10.1f}"
                if found
                else f"{'-':>14}{'-':>10}"
            )
        say(f"  {title:<24}{cells}")


def kinds_of(report: Report) -> set[str]:
    return set(report.account.kinds)


def part_of(report: Report, number: int) -> list[Ended]:
    third = report.seconds * WARM_UP
    return [
        run
        for run in report.account.ended
        if number * third <= run.due - report.began < (number + 1) * third
    ]


def say_use(report: Report) -> None:
    """What of the machine a run took, over all samples."""
    first, last = report.samples[0], report.samples[-1]
    runs, seconds = len(report.account.ended), last["at"] - first["at"]
    if seconds <= 0:
        return
    used = {name: last[name] - first[name] for name in last if name in first}
    own = {name: value for name, value in used.items() if name.endswith(" processor")}
    server, log = own["server processor"], used["log written"]
    workers = sum(value for name, value in own.items() if name.startswith("worker"))
    machine = used["machine busy"] + used["machine idle"]
    say(
        f"\nprocessor time per run: workers {workers / runs * 1000:.1f} ms, "
        f"server {server / runs * 1000:.1f} ms; log {log / runs / 1000:.1f} kB per run, "
        f"{log / seconds / 1e6:.2f} MB/s; lag of the queue at most "
        f"{max(sample['lag'] for sample in report.samples):.2f} s\n"
        f"of all processor time, {sum(own.values()) / machine:.0%} went to the soak "
        f"({own['asker processor'] / machine:.0%} to what asks for runs), "
        f"{(used['machine busy'] - sum(own.values())) / machine:.0%} to other things"
    )


def windows(report: Report) -> list[dict[str, float]]:
    """Latencies between samples, in ms."""
    moments = [sample["at"] for sample in report.samples] + [report.seconds]
    found = []
    for begun, end in pairwise(moments):
        runs = [run for run in report.account.ended if begun <= run.due - report.began < end]
        if runs:
            starts, ends = [run.start_ms for run in runs], [run.end_ms for run in runs]
            found.append(
                {
                    "at": begun,
                    "runs": float(len(runs)),
                    **quantiles("start", starts),
                    **quantiles("end", ends),
                }
            )
    return found


def quantiles(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name} p50": percentile(values, 0.5), f"{name} p99": percentile(values, 0.99)}


def as_json(report: Report) -> str:
    account = report.account
    document = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "options": asdict(report.options),
        "capacity": report.capacity,
        "rate": report.rate,
        "seconds": report.seconds,
        "early": report.early,
        "asked": account.asked,
        "ended": dict(account.kinds),
        "wrong": account.wrong_count,
        "lost": account.lost,
        "complaints": account.wrong,
        "exits": report.exits,
        "is_kept": report.is_kept,
        "judgements": [
            {**asdict(judgement), "is_kept": judgement.is_kept}
            for judgement in (report.judgements() if report.seconds else ())
        ],
        "windows": windows(report),
        "samples": report.samples,
    }
    return json.dumps(document, indent=1)
