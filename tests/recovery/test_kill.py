"""Processes are killed with ``kill -9`` at random moments, and every run must end as if none was.

Several commands of one home run at once: ``swarm run``, ``--detach``, ``runs resume``, workers and
the background workers that they start; and others that answer, send events and cancel. Commands,
workers, zygotes and sandboxes are killed. The judge is a model that computes what each run must
give, and a ledger outside of what was executed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SCALE, Scale
from tests.recovery.kills.chaos import Chaos
from tests.recovery.kills.home import Home
from tests.recovery.kills.verdict import check, draw_flows, register
from tests.recovery.kills.workflows import Flow

SESSIONS = 5 if SCALE == "full" else 1
"""Homes for each isolation level; 10 homes of 105 kills are 1,050."""


@pytest.fixture
def flows(rng: random.Random) -> list[Flow]:
    return draw_flows(rng)


@pytest.mark.parametrize("session", range(SESSIONS))
@pytest.mark.parametrize("isolation", ["sandbox", "none"])
def test_whatever_is_killed_every_accepted_run_ends_as_if_nothing_was(
    tmp_path: Path,
    flows: list[Flow],
    rng: random.Random,
    scale: Scale,
    isolation: str,
    session: int,
    record_property: Callable[[str, object], None],
) -> None:
    wanted = scale(small=12, full=105)
    with Home(tmp_path, SWARM_IDLE_SECONDS="0.5") as home:
        register(home, flows, tmp_path)
        chaos = Chaos(home, flows, isolation, rng)
        chaos.kill(wanted)
        chaos.settle()
        measured = check(home, chaos, {flow.name: flow for flow in flows})
        record_property("measured", f"{measured}, kills: {dict(chaos.kills.most_common())}")
