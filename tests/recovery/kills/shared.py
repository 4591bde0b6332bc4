"""Judges what concerns several runs, or steps of several: budgets, limits, caches and keys."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping

from tests.recovery.kills.journal import Journal, Row, query
from tests.recovery.kills.judging import key_of
from tests.recovery.kills.workflows import Flow

Runs = Mapping[str, Row]


def check_concurrency(home: Journal, runs: Runs, flows: dict[str, Flow]) -> None:
    """Never more runs at once than the limit, from a run's first step to its end.

    One that is cancelled before it was let begin has none: only its actions are done.
    """
    begun = query(
        home,
        "SELECT run_id, min(started_at) AS moment FROM step_executions "
        "WHERE started_at IS NOT NULL AND step_id NOT LIKE 'on_%' GROUP BY run_id",
    )
    moments: dict[tuple[str, int], list[tuple[str, int]]] = defaultdict(list)
    for row in begun:
        run = runs[row["run_id"]]
        if flows[run["workflow_name"]].limit is not None:
            key = (run["workflow_name"], json.loads(run["inputs"])["number"] % 2)
            moments[key] += [(row["moment"], 1), (run["completed_at"], -1)]
    for (name, share), changes in moments.items():
        going = 0
        for _, change in sorted(changes):
            going += change
            assert going <= (flows[name].limit or 0), f"{going} runs of {name} at once ({share})"


def check_budgets(home: Journal, runs: Runs, flows: dict[str, Flow]) -> None:
    """What was used is counted, and nothing begins once the budget is used up."""
    made: dict[str, list[Row]] = defaultdict(list)
    for row in query(home, "SELECT * FROM invocations WHERE run_id IS NOT NULL"):
        made[row["run_id"]].append(row)
    trees: dict[str, list[Row]] = defaultdict(list)
    for run_id, run in runs.items():
        used = sum(row["tokens"] for row in made[run_id])
        assert run["total_api_tokens"] == used, f"{run_id} used {used} tokens"
        trees[run["root_run_id"] or run_id] += made[run_id]
    for root_id, attempts in trees.items():
        flow, root = flows[runs[root_id]["workflow_name"]], runs[root_id]
        if flow.tokens is None:
            continue
        used = sum(row["tokens"] for row in attempts)
        assert root["tree_api_tokens"] == used, f"{root_id} with all that it calls used {used}"
        own = [row for row in attempts if row["run_id"] == root_id]
        check_order(home, flow, flow.tokens, own, attempts)


def check_order(
    home: Journal, flow: Flow, budget: int, own: list[Row], attempts: list[Row]
) -> None:
    """No attempt of these spends whose predecessors had ended when the budget was used up."""
    steps = {step.id: step for step in flow.steps}
    for row in own:
        if not row["tokens"]:
            continue
        step = steps[row["step_id"]]
        needed = {*step.reads, *step.needs, *step.reads_error_of}
        before = [
            other["completed_at"]
            for other in own
            if other["step_id"] in needed
            or (key_of(other) == key_of(row) and other["attempt"] < row["attempt"])
        ]
        begun = max(before, default="")
        spent = sum(other["tokens"] for other in attempts if other["completed_at"] <= begun)
        assert spent < budget, f"{key_of(row)} began when {spent} of {budget} tokens were used"


def cached_keys(home: Journal, flows: dict[str, Flow]) -> dict[tuple[str, str], list[Row]]:
    """The executions of steps with a cache that have begun, by agent and inputs."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    rows = query(
        home,
        "SELECT step.*, run.workflow_name, run.created_at AS run_created_at "
        "FROM step_executions AS step JOIN workflow_runs AS run ON run.id = step.run_id "
        "WHERE step.inputs IS NOT NULL",
    )
    cached = {
        (flow.name, step.id) for flow in flows.values() for step in flow.steps if step.is_cached
    }
    for row in rows:
        if (row["workflow_name"], row["step_id"]) in cached:
            found[row["agent_name"], row["inputs"]].append(row)
    return found


def ended_keys(home: Journal, flows: dict[str, Flow]) -> set[tuple[str, str]]:
    """Those of which a result is there to be used again."""
    return {
        key
        for key, rows in cached_keys(home, flows).items()
        if any(row["status"] == "succeeded" for row in rows)
    }


def check_caches(home: Journal, flows: dict[str, Flow], since: dict[tuple[str, str], str]) -> int:
    """No run that was created when a result was there makes an attempt of its own; returns how
    many results were used again."""
    reused = 0
    for key, rows in cached_keys(home, flows).items():
        makers = {
            row["run_id"]
            for row in rows
            if row["status"] == "succeeded" and row["reused_from"] is None
        }
        for row in rows:
            if row["reused_from"] is not None:
                reused += 1
                assert row["reused_from"] in makers
            if row["run_created_at"] > since.get(key, "~"):
                assert row["attempt"] == 0, f"{row['run_id']} executed {key_of(row)} once more"
    return reused


def check_keys(runs: Runs, told: Mapping[str, list[set[str]]]) -> int:
    """One run for each idempotency key, of which each command told that was not killed; returns how
    many of them told of a run that was known before."""
    keyed = [(run["idempotency_key"], run_id) for run_id, run in runs.items()]
    counted = Counter(key for key, _ in keyed if key is not None)
    assert set(counted.values()) <= {1}, f"a key began several runs: {counted}"
    begun = {key: run_id for key, run_id in keyed if key is not None}
    for key, commands in told.items():
        for ids in commands:
            assert begun.get(key) in ids, f"{ids} were told of for {key}, not {begun.get(key)}"
    return sum(len(commands) - 1 for commands in told.values())
