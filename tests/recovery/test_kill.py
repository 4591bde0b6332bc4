"""Runs are killed with ``kill -9`` at random moments, again and again, and resumed each time.

The judge is not the journal alone: every execution of a step writes a line to the run's log, which
outlives the process. A step whose end was journalled before a kill must never write a line after.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LAYERS = 4
WIDTH = 3
DEADLINE_SECONDS = 60

AGENT = """\
name: add
version: 1.0.0
runtime: {type: python, entry: main.py, timeout_seconds: 60}
inputs: [{name: values, type: array}]
outputs: [{name: total, type: integer}]
"""
HANDLER = """\
import time

def handler(inputs, context):
    context.log.info(f"executed {context.step_id} {context.idempotency_key}")
    time.sleep(0.01)
    return {"total": sum(inputs["values"]) + 1}
"""


def mesh() -> tuple[str, dict[str, int]]:
    """A workflow of layers in which each step adds up the layer before; and what it must give."""
    lines = ["name: mesh", "version: 1.0.0", "steps:"]
    expected: dict[str, int] = {}
    for layer in range(LAYERS):
        below = [f"s{layer - 1}_{column}" for column in range(WIDTH)] if layer else []
        values = json.dumps([f"${{steps.{step}.outputs.total}}" for step in below])
        for column in range(WIDTH):
            step = f"s{layer}_{column}"
            lines += [f"  - id: {step}", "    agent: add", f"    inputs: {{values: {values}}}"]
            expected[step] = sum(expected[other] for other in below) + 1
    return "\n".join(lines) + "\n", expected


class Home:
    """One Swarm home, used through the real command."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "SWARM_HOME": str(root)}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "swarm", *arguments]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def query(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with sqlite3.connect(self.root / "registry" / "registry.db", timeout=30) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(sql, values).fetchall()

    def finished_steps(self, run_id: str) -> dict[str, tuple[object, ...]]:
        rows = self.query(
            "SELECT * FROM step_executions WHERE run_id = ? AND status = 'succeeded'", run_id
        )
        return {row["step_id"]: tuple(row) for row in rows}

    def executions(self, run_id: str) -> dict[str, int]:
        """How often each step has been executed, as its log lines tell."""
        log = self.root / "registry" / "logs" / "workflow-runs" / f"{run_id}.jsonl"
        counts: dict[str, int] = {}
        for line in log.read_text().splitlines() if log.exists() else ():
            entry = json.loads(line)
            if entry["message"].startswith("executed "):
                _, step, key = entry["message"].split()
                assert key == f"{run_id}:{step}"
                counts[step] = counts.get(step, 0) + 1
        return counts


@pytest.fixture
def home(tmp_path: Path) -> Home:
    agent = tmp_path / "add"
    agent.mkdir()
    (agent / "agent.yaml").write_text(AGENT)
    (agent / "main.py").write_text(HANDLER)
    (tmp_path / "workflow.yaml").write_text(mesh()[0])
    home = Home(tmp_path / "home")
    home.run("agent", "register", str(agent))
    home.run("workflow", "register", str(tmp_path / "workflow.yaml"))
    return home


def kill_when(
    process: subprocess.Popen[bytes], reached: Callable[[], bool], rng: random.Random
) -> bool:
    """Kill the process at a random moment after ``reached``; False if it ended by itself."""
    while not reached():
        if process.poll() is not None:
            return False
    spins = rng.randrange(0, 40_000)  # a random moment, up to a few milliseconds later
    while spins:
        spins -= 1
    if process.poll() is not None:
        return False
    if rng.random() < 0.5:
        os.kill(process.pid, signal.SIGKILL)
    else:  # the sandboxes' keeper dies with it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(DEADLINE_SECONDS)
    return True


def only_run(home: Home) -> str | None:
    rows = home.query("SELECT id FROM workflow_runs WHERE status NOT IN ('succeeded', 'failed')")
    return rows[0]["id"] if rows else None


def drive_with_kills(home: Home, rng: random.Random, kills: int) -> int:
    """One run, killed at most ``kills`` times; checks it after each; returns the kills made."""
    process = home.start("run", "mesh", "--json")
    made = 0
    while (run_id := only_run(home)) is None:
        assert process.poll() is None, "the run was never recorded"
    kept: dict[str, tuple[object, ...]] = {}
    executed: dict[str, int] = {}
    while made < kills:
        goal = len(kept) + rng.randrange(0, 4)

        def reached(goal: int = goal, run_id: str = run_id) -> bool:
            return len(home.finished_steps(run_id)) >= goal

        if not kill_when(process, reached, rng):
            break
        made += 1
        finished = home.finished_steps(run_id)
        assert kept.items() <= finished.items(), "a finished step was lost or changed"
        kept, executed = finished, home.executions(run_id)
        assert all(executed[step] >= 1 for step in kept)
        process = home.start("runs", "resume", run_id)
    process.wait(DEADLINE_SECONDS)
    home.run("runs", "resume")
    check_ended_well(home, run_id, kept, executed)
    return made


def check_ended_well(
    home: Home, run_id: str, kept: dict[str, tuple[object, ...]], executed: dict[str, int]
) -> None:
    (run,) = home.query("SELECT * FROM workflow_runs WHERE id = ?", run_id)
    assert run["status"] == "succeeded", run["error"]
    finished = home.finished_steps(run_id)
    assert kept.items() <= finished.items()
    now_executed = home.executions(run_id)
    assert {step: now_executed[step] for step in kept} == {step: executed[step] for step in kept}
    results = json.loads(run["step_results"])
    totals = {step: result["outputs"]["total"] for step, result in results.items()}
    assert totals == mesh()[1]
    running = home.query(
        "SELECT count(*) AS n FROM invocations WHERE run_id = ? AND status = 'running'", run_id
    )
    assert running[0]["n"] == 0


def test_killed_runs_are_resumed_and_no_finished_step_runs_again(
    home: Home, rng: random.Random, scale: Callable[..., int]
) -> None:
    wanted, kills, runs = scale(small=8, full=60), 0, 0
    while kills < wanted:
        kills += drive_with_kills(home, rng, min(6, wanted - kills))
        runs += 1
        assert runs < wanted * 3, "the runs end before they can be killed"
    assert kills >= wanted
