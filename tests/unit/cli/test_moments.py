"""Moments and lengths of time as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from swarm.cli.moments import past_moment, unit_seconds
from swarm.kernel.clock import from_text, now


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5_400), ("7d", 604_800), ("2d12h", 216_000)])
def test_a_length_of_time_means_so_long_ago(text: str, seconds: float) -> None:
    assert unit_seconds(text) == seconds
    moment = from_text(past_moment(text))
    ago = now() - moment
    assert timedelta(0) <= ago - timedelta(seconds=seconds) < timedelta(minutes=1)


def test_dates_are_of_this_machine_unless_they_name_a_zone() -> None:
    midnight = datetime(2026, 1, 31).astimezone().astimezone(UTC)
    assert from_text(past_moment("2026-01-31")) == midnight
    assert from_text(past_moment("2026-01-31T09:00")) == midnight + timedelta(hours=9)
    assert past_moment("2026-01-31T09:00+01:00") == "2026-01-31T08:00:00.000000Z"


@pytest.mark.parametrize(
    "text", ["", " ", "7", "90 bananas", "-3d", "yesterday", "2026-13-01", "9999d"]
)
def test_what_could_mean_anything_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no "):
        past_moment(text)
    with pytest.raises(ValueError, match="is no length of time"):
        unit_seconds(text)


def test_a_moment_at_the_edge_of_time_is_refused_or_written() -> None:
    for text in ("0001-01-01", "9999-12-31T23:59:59-23:00"):
        try:
            past_moment(text)
        except ValueError as error:
            assert "is no moment" in str(error)
