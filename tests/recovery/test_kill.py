"""Processes are killed with ``kill -9`` at random moments, and every run must end as if none was.

Several commands of one home run at once: ``swarm run``, ``--detach``, ``runs resume``, workers and
the background workers that they start; and others that answer, send events and cancel. Commands,
workers, zygotes and sandboxes are killed. The judge is a model that computes what each run must
give, and a ledger outside of what was executed.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SCALE, Scale
from tests.recovery.kills.agents import write_agents
from tests.recovery.kills.chaos import Chaos
from tests.recovery.kills.home import Home
from tests.recovery.kills.judging import CUTS, check_effects, check_run, query
from tests.recovery.kills.shared import check_budgets, check_caches, check_concurrency, check_keys
from tests.recovery.kills.workflows import Flow, draw_child, draw_flow, endless, limited

SESSIONS = 5 if SCALE == "full" else 1
"""Homes for each isolation level; 10 homes of 105 kills are 1,050."""
CHILDREN = 2
FLOWS = 8


@pytest.fixture
def flows(rng: random.Random) -> list[Flow]:
    """Some that are called come first: registering checks that what is called is there."""
    children = [draw_child(f"child-{number}", rng) for number in range(CHILDREN)]
    flows = [
        draw_flow(f"flow-{number}", rng, children=children, is_alone=False)
        for number in range(FLOWS)
    ]
    limits = [*(limited(flow, rng) for flow in flows[1:]), endless(flows[0])]
    return [*children, *limits]


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


def register(home: Home, flows: list[Flow], folder: Path) -> None:
    for package in write_agents(folder / "agents"):
        home.run("agent", "register", str(package))
    for flow in flows:
        file = folder / f"{flow.name}.yaml"
        file.write_text(flow.text())
        home.run("workflow", "register", str(file))


def check(home: Home, chaos: Chaos, flows: dict[str, Flow]) -> str:
    """Every accepted run has ended as the model says, and each effect is where it belongs."""
    assert not home.crashes()
    runs = {run["id"]: run for run in query(home.root, "SELECT * FROM workflow_runs")}
    assert home.accepted() <= runs.keys()
    assert runs
    effects = home.effects()
    assert effects.keys() <= runs.keys()
    for run_id, run in runs.items():
        flow = flows[run["workflow_name"]]
        number = json.loads(run["inputs"])["number"]
        cuts = cuts_of(run, runs, flows, chaos)
        try:
            check_run(home.root, run_id, flow, number, cuts)
            check_effects(home.root, run_id, flow, effects.get(run_id, []))
        except AssertionError as error:
            raise AssertionError(f"{error} ({run_id} of {flow}, number {number})") from None
    check_concurrency(home.root, runs, flows)
    check_budgets(home.root, runs, flows)
    early, late = chaos.outside.check()
    reused = check_caches(home.root, flows, chaos.cached_since)
    again = check_keys(runs, chaos.told)
    ended = Counter(run["error_code"] if run["error_code"] in CUTS else "" for run in runs.values())
    return (
        f"{len(runs)} runs ({ended['cancelled']} cancelled, {ended['budget']} out of budget), "
        f"{len(chaos.outside.answers)} answers, {early} events before and {late} after the wait, "
        f"{reused} results reused, {again} calls with a known key"
    )


def cuts_of(
    run: sqlite3.Row, runs: dict[str, sqlite3.Row], flows: dict[str, Flow], chaos: Chaos
) -> set[str]:
    """What may have ended a run early."""
    cuts = set()
    caller = runs.get(run["parent_run_id"])
    was_left = caller is not None and caller["status"] in ("failed", "cancelled")
    if was_left or run["id"] in chaos.outside.cancelled:
        cuts.add("cancelled")
    root = runs[run["root_run_id"] or run["id"]]
    if flows[root["workflow_name"]].is_short:
        cuts.add("budget")
    return cuts
