"""How often what is old is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.bootstrap.collection import interval_seconds
from swarm.bootstrap.tidying import purge_interval
from swarm.kernel.settings import Settings

DAY = 86_400.0


@pytest.mark.parametrize(
    ("retention", "unused", "seconds"),
    [
        (90, 30, 3_600),  # the defaults: hourly
        (0, 0, 3_600),  # all is kept; what has expired by itself still goes
        (60 / DAY, 30, 15),
        (90, 120 / DAY, 30),
        (0.1 / DAY, 30, 1),
    ],
)
def test_runs_are_purged_four_times_in_the_time_that_they_are_kept(
    tmp_path: Path, retention: float, unused: float, seconds: float
) -> None:
    settings = Settings(home=tmp_path, retention_days=retention, unused_days=unused)
    assert purge_interval(settings) == pytest.approx(seconds)


def test_what_is_unused_is_collected_daily_or_in_the_time_that_it_is_kept(tmp_path: Path) -> None:
    assert interval_seconds(Settings(home=tmp_path)) == DAY
    assert interval_seconds(Settings(home=tmp_path, unused_days=0.5)) == DAY / 2
