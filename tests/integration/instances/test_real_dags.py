"""Workflows of the sciences, imported and run: order, results and critical path.

``make test`` runs the smallest instance of each application without isolation and one in
sandboxes; ``make prove`` also those of about 1,000 and 10,000 tasks without isolation, and more in
sandboxes, up to about 1,000 tasks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.engine.api import RunRequest
from swarm.kernel.settings import Settings
from swarm.packages.builtin import catalog_root
from swarm.packages.instances import Scale, import_instance
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunRecord
from tests.conftest import SCALE
from tests.conftest import Scale as CountScale
from tests.integration.instances.checking import check_run, seconds_between
from tests.integration.instances.expected import (
    SMALL,
    Expected,
    critical_path,
    expect,
    read_instance,
)

LARGE = [f"{name.partition('-')[0]}-1000" for name in SMALL]
LONGEST_MS = 2.0
LARGEST_BYTES = 2_000
MOST_GROWTH = 2.5
"""A step's cost in a DAG that is ten times as large or more; in proportion, it would be 10."""

full_only = pytest.mark.skipif(SCALE != "full", reason="run by make prove")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", max_steps=10_000)


@pytest.fixture
async def swarm(settings: Settings) -> AsyncIterator[Swarm]:
    async with open_swarm(settings, role="test") as opened:
        await opened.agents.register(catalog_root() / "agents" / "stand-in")
        yield opened


async def run_instance(swarm: Swarm, name: str, folder: Path, isolation: Isolation) -> RunRecord:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(read_instance(name)))
    made = import_instance(file, folder, Scale(LONGEST_MS, LARGEST_BYTES), swarm.settings, name)
    await swarm.workflows.register(made.folder)
    run = await swarm.runs.create(RunRequest(name, isolation=isolation))
    await swarm.runs.start(run.id)
    return await swarm.runs.wait(run.id)


def shown(run: RunRecord, settings: Settings) -> dict[str, Any]:
    """The run as ``swarm runs show`` tells of it."""
    done = subprocess.run(
        [sys.executable, "-m", "swarm", "runs", "show", run.id, "--json"],
        env=os.environ | {"SWARM_HOME": str(settings.home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize(
    "name",
    [
        *SMALL,
        *(pytest.param(large, marks=full_only) for large in (*LARGE, "montage-10000")),
    ],
)
async def test_an_instance_runs_as_it_says(name: str, swarm: Swarm, tmp_path: Path) -> None:
    run = await run_instance(swarm, name, tmp_path, Isolation.NONE)
    steps = await swarm.store.list_steps(run.id)
    check_run(run, steps, expect(read_instance(name), LONGEST_MS, LARGEST_BYTES))


@pytest.mark.parametrize(
    "name",
    [
        "montage-60",
        *(pytest.param(one, marks=full_only) for one in ("cycles-69", "soykb-98", "montage-1000")),
    ],
)
async def test_an_instance_runs_in_sandboxes(
    name: str, swarm: Swarm, settings: Settings, tmp_path: Path
) -> None:
    expected = expect(read_instance(name), LONGEST_MS, LARGEST_BYTES)
    run = await run_instance(swarm, name, tmp_path, Isolation.SANDBOX)
    steps = await swarm.store.list_steps(run.id)
    check_run(run, steps, expected)
    assert {step.isolation for step in steps} == {"sandbox"}
    check_figures(shown(run, settings), expected)


@pytest.mark.alone
async def test_the_cost_of_a_step_does_not_grow_with_the_dag(
    swarm: Swarm, tmp_path: Path, scale: CountScale
) -> None:
    """In time of the processor, which what else this machine does hardly changes."""
    costs = []
    for tasks in (scale(small=60, full=1_000), scale(small=1_000, full=10_000)):
        name = f"montage-{tasks}"
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(read_instance(name)))
        made = import_instance(file, tmp_path, Scale(0, 0), swarm.settings, name)
        await swarm.workflows.register(made.folder)
        before = time.process_time()
        run = await swarm.runs.create(RunRequest(name, isolation=Isolation.NONE))
        await swarm.runs.start(run.id)
        run = await swarm.runs.wait(run.id)
        assert run.status == "succeeded"
        costs.append((time.process_time() - before) / made.steps)
    small, large = costs
    assert large < small * MOST_GROWTH, costs


def check_figures(document: dict[str, Any], expected: Expected) -> None:
    """What is shown of a run agrees with itself, with the journal's times and with the DAG.

    A step's ``duration_ms`` is that of its work; from its start on it may also wait for a sandbox.
    """
    told = {step["id"]: step for step in document["steps"]}
    assert {step: told[step]["outputs"] for step in told} == expected.outputs
    working = {step: told[step]["duration_ms"] / 1000 for step in told}
    in_all = {
        step: seconds_between(told[step]["started_at"], told[step]["completed_at"]) for step in told
    }
    assert [step for step in told if working[step] > in_all[step] + 0.001] == []
    assert max(working.values()) > 0
    took = seconds_between(document["started_at"], document["completed_at"])
    assert took >= critical_path(expected.parents, in_all)
    assert took < sum(in_all.values()), "nothing ran beside anything else"
