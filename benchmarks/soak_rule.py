"""The rule by which a soak is judged. It is pure, and stood before any soak was run.

A soak's first third is warm-up. Of what was sampled in the rest:

- Memory, descriptors, threads, tables, rows, homes: the slope that Theil and Sen fit (H. Theil, *A
  rank-invariant method of linear and polynomial regression analysis*, 1950; P. K. Sen, *Estimates
  of the regression coefficient based on Kendall's tau*, 1968), times the length of the rest, may be
  at most a share of the median, or a floor where that is more (:data:`ALLOWED`). Saws of vacuum and
  purge have no slope by it, and a single outlier moves it little.
- Latency: its 99th percentile in the last third may be at most :data:`TIMES` that in the middle
  third, or :data:`FLOOR_MS` more.
- Every run that was asked for has ended, as it had to (the caller counts).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WARM_UP = 1 / 3
"""Share of the soak that is not judged."""
TIMES = 1.5
FLOOR_MS = 10.0
KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Allowed:
    """How much may come to something in the judged part."""

    share: float
    """Of its median."""
    floor: float
    """Less than this is never too much, in its own unit."""


ALLOWED = {
    "memory": Allowed(0.05, 4 * MIB),
    "descriptors": Allowed(0.05, 3),
    "threads": Allowed(0.05, 3),
    "connections": Allowed(0.05, 3),
    "bytes": Allowed(0.10, 1 * MIB),
    "rows": Allowed(0.10, 100),
    "files": Allowed(0.10, 100),
}
"""By the measure, which is the last word of a series' name; others are recorded, not judged."""


@dataclass(frozen=True)
class Judgement:
    """One line of the verdict."""

    title: str
    found: float
    limit: float
    median: float = 0.0
    unit: str = ""

    @property
    def is_kept(self) -> bool:
        return self.found <= self.limit


Sample = Mapping[str, float]
"""What was found at one moment, by the name of the series; ``at`` are its seconds since the load
began."""


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between all pairs of points; 0 of fewer than two."""
    slopes = [
        (values[later] - values[earlier]) / (times[later] - times[earlier])
        for earlier in range(len(times))
        for later in range(earlier + 1, len(times))
        if times[later] > times[earlier]
    ]
    return statistics.median(slopes) if slopes else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def judge_growth(samples: Sequence[Sample], seconds: float) -> list[Judgement]:
    """How much each series grew after the warm-up, of a load that lasted for ``seconds``."""
    rest = [sample for sample in samples if sample["at"] >= seconds * WARM_UP]
    names = {name: None for sample in rest for name in sample}
    judgements = []
    for name in names:
        measure = name.rsplit(" ", 1)[-1]
        if measure not in ALLOWED:
            continue
        points = [(sample["at"], sample[name]) for sample in rest if name in sample]
        times, values = zip(*points, strict=True)
        allowed, median = ALLOWED[measure], statistics.median(values)
        growth = theil_sen(times, values) * seconds * (1 - WARM_UP)
        limit = max(allowed.share * median, allowed.floor)
        judgements.append(Judgement(name, growth, limit, median, measure))
    return judgements


def judge_latency(title: str, moments: Sequence[tuple[float, float]], seconds: float) -> Judgement:
    """Whether the latency stayed.

    Args:
        title: which.
        moments: when it began, in seconds since the load did, and how long it took, ms.
        seconds: how long the load lasted.
    """
    third = seconds * WARM_UP
    middle = [took for at, took in moments if third <= at < 2 * third]
    last = [took for at, took in moments if 2 * third <= at]
    if not middle or not last:
        return Judgement(f"{title}: nothing ended in a third", 1, 0)
    base = percentile(middle, 0.99)
    return Judgement(title, percentile(last, 0.99), max(TIMES * base, base + FLOOR_MS), base, "ms")
