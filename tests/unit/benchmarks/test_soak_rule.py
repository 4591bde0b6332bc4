"""What a soak is judged by notices what grows, and lets be what only swings."""

from __future__ import annotations

import random

import pytest

from benchmarks.soak_rule import (
    MIB,
    Judgement,
    judge_growth,
    judge_latency,
    percentile,
    theil_sen,
)

SECONDS = 1800.0
EVERY = 10.0


def judged(name: str, value_at: object) -> Judgement:
    """The judgement of a series that has ``value_at(seconds)``."""
    assert callable(value_at)
    count = int(SECONDS / EVERY)
    samples = [{"at": number * EVERY, name: value_at(number * EVERY)} for number in range(count)]
    (judgement,) = judge_growth(samples, SECONDS)
    return judgement


def test_the_slope_is_that_of_the_line_whatever_a_few_outliers_say() -> None:
    times = [float(number) for number in range(60)]
    values = [3 * time + 7 for time in times]
    assert theil_sen(times, values) == pytest.approx(3)
    values[5] = values[40] = 1e9
    assert theil_sen(times, values) == pytest.approx(3, rel=0.02)
    assert theil_sen([1.0], [5.0]) == 0


def test_a_percentile_is_a_value_that_was_there() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.99) == 99
    assert percentile(values, 0.5) == 50
    assert percentile([4.0], 0.99) == 4


@pytest.mark.parametrize("leak", [0.0, 0.005, 0.02])
def test_memory_that_leaks_is_noticed(leak: float) -> None:
    """Of 150 MiB, in MiB per second: 20 minutes allow 7.5 MiB."""
    rng = random.Random(1)
    found = judged("worker 1 memory", lambda at: (150 + leak * at + rng.uniform(-1, 1)) * MIB)
    assert found.found == pytest.approx(leak * 1200 * MIB, abs=0.5 * MIB)
    assert found.is_kept is (leak < 0.00625)


def test_what_grows_in_the_warm_up_alone_is_let_be() -> None:
    assert judged("runs bytes", lambda at: min(at, 500) * MIB).is_kept
    assert not judged("runs bytes", lambda at: min(at, 1500) * MIB).is_kept


def test_a_saw_is_flat_and_a_rising_saw_is_not() -> None:
    assert judged("runs rows", lambda at: 5000 + 40 * (at % 70)).is_kept
    assert not judged("runs rows", lambda at: 5000 + 40 * (at % 70) + at).is_kept


def test_little_of_something_small_is_let_be() -> None:
    assert judged("fleet_hosts bytes", lambda at: 8192 if at < 900 else 65_536).is_kept
    assert judged("worker 1 descriptors", lambda at: 30 + at / 1000).is_kept
    assert not judged("worker 1 descriptors", lambda at: 30 + at / 200).is_kept


def test_what_is_only_recorded_is_not_judged() -> None:
    assert judge_growth([{"at": 700.0, "lag": 3.0}, {"at": 800.0, "lag": 300.0}], 900) == []


def test_latency_may_rise_by_half() -> None:
    rng = random.Random(2)
    early = [(at, rng.expovariate(1 / 50)) for at in range(1200)]
    late = [(at, rng.expovariate(1 / 50)) for at in range(1200, 1800)]
    assert judge_latency("p99", early + late, SECONDS).is_kept
    slow = [(at, 2 * took) for at, took in late]
    assert not judge_latency("p99", early + slow, SECONDS).is_kept


def test_latency_of_nothing_is_no_latency() -> None:
    assert not judge_latency("p99", [(10.0, 5.0), (700.0, 5.0)], SECONDS).is_kept
