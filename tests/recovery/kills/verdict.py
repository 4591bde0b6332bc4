"""What a session of kills begins with, and what is asked of it at its end."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

from tests.recovery.kills.agents import write_agents
from tests.recovery.kills.chaos import Chaos
from tests.recovery.kills.home import Home
from tests.recovery.kills.journal import Row, query
from tests.recovery.kills.judging import CUTS, check_effects, check_run
from tests.recovery.kills.shared import check_budgets, check_caches, check_concurrency, check_keys
from tests.recovery.kills.workflows import Flow, draw_child, draw_flow, endless, limited

CHILDREN = 2
FLOWS = 8


def draw_flows(rng: random.Random, count: int = FLOWS, quick: int = 0) -> list[Flow]:
    """Some that are called come first: registering checks that what is called is there.

    Args:
        rng: the choices.
        count: how many are called by none.
        quick: how many of these do little.
    """
    children = [draw_child(f"child-{number}", rng) for number in range(CHILDREN)]
    flows = [
        draw_flow(
            f"flow-{number}",
            rng,
            quick=number >= count - quick,
            children=children,
            is_alone=False,
        )
        for number in range(count)
    ]
    limits = [*(limited(flow, rng) for flow in flows[1:]), endless(flows[0])]
    return [*children, *limits]


def register(home: Home, flows: list[Flow], folder: Path) -> None:
    home.run("agent", "register", *map(str, write_agents(folder / "agents")))
    files = [folder / f"{flow.name}.yaml" for flow in flows]
    for flow, file in zip(flows, files, strict=True):
        file.write_text(flow.text())
    home.run("workflow", "register", *map(str, files))


def check(home: Home, chaos: Chaos, flows: dict[str, Flow], *, may_overlap: bool = False) -> str:
    """Every accepted run has ended as the model says, and each effect is where it belongs.

    ``may_overlap``: whether an attempt may outlive the lease of its host.
    """
    assert not home.crashes()
    runs = {run["id"]: run for run in query(home.journal, "SELECT * FROM workflow_runs")}
    assert home.accepted() <= runs.keys()
    assert runs
    effects = home.effects()
    assert effects.keys() <= runs.keys()
    for run_id, run in runs.items():
        flow = flows[run["workflow_name"]]
        number = json.loads(run["inputs"])["number"]
        cuts = cuts_of(run, runs, flows, chaos)
        try:
            check_run(home.journal, run_id, flow, number, cuts)
            told = effects.get(run_id, [])
            check_effects(home.journal, run_id, flow, told, may_overlap=may_overlap)
        except AssertionError as error:
            raise AssertionError(f"{error} ({run_id} of {flow}, number {number})") from None
    check_concurrency(home.journal, runs, flows)
    check_budgets(home.journal, runs, flows)
    early, late = chaos.outside.check()
    reused = check_caches(home.journal, flows, chaos.cached_since)
    again = check_keys(runs, chaos.told)
    ended = Counter(run["error_code"] if run["error_code"] in CUTS else "" for run in runs.values())
    return (
        f"{len(runs)} runs ({ended['cancelled']} cancelled, {ended['budget']} out of budget), "
        f"{len(chaos.outside.answers)} answers, {early} events before and {late} after the wait, "
        f"{reused} results reused, {again} calls with a known key"
    )


def cuts_of(run: Row, runs: dict[str, Row], flows: dict[str, Flow], chaos: Chaos) -> set[str]:
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
