"""Who stops a worker leaves it the time to drain, and to clean up after that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
CLEANING_UP_SECONDS = 30


@pytest.mark.parametrize(
    ("file", "pattern", "unit_seconds"),
    [
        ("compose.yaml", r"stop_grace_period: (\d+)s", 1),
        ("kubernetes.yaml", r"terminationGracePeriodSeconds: (\d+)", 1),
        ("helm/swarm/values.yaml", r"terminationGracePeriodSeconds: (\d+)", 1),
        ("systemd/swarm-worker@.service", r"TimeoutStopSec=(\d+)min", 60),
    ],
)
def test_a_worker_has_time_to_drain(file: str, pattern: str, unit_seconds: int) -> None:
    found = re.findall(pattern, (DEPLOY / file).read_text())
    assert found
    needed = Settings().drain_seconds + CLEANING_UP_SECONDS
    assert all(int(number) * unit_seconds >= needed for number in found)
