"""A workflow of the sciences is killed again and again on its way, and comes to what it should."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.bootstrap.records import open_records
from swarm.kernel.settings import Settings
from swarm.packages.builtin import catalog_root
from swarm.packages.instances import Scale, import_instance
from swarm.store.records import StepRecord
from tests.conftest import Scale as CountScale
from tests.integration.instances.checking import check_run
from tests.integration.instances.expected import expect, read_instance

NAME = "montage-1000"
LONGEST_MS = 2.0
LARGEST_BYTES = 1_000
_RUN_ID = re.compile(r"run_[0-9a-f]{32}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def start(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-m", "swarm", *arguments],
        env=os.environ | {"SWARM_HOME": str(settings.home), "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(settings: Settings, *arguments: str) -> None:
    process = start(settings, *arguments)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told[-2000:]


def kill_after(process: subprocess.Popen[str], steps: int) -> str:
    """Kill the command once it has told of so many more finished steps; returns what it told."""
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        steps -= " succeeded in " in line
        if steps == 0:
            break
    process.kill()
    process.communicate()
    return told


async def finished_steps(settings: Settings, run_id: str) -> dict[str, StepRecord]:
    async with open_records(settings) as records:
        steps = await records.store.list_steps(run_id)
    return {step.step_id: step for step in steps if step.status == "succeeded"}


async def test_a_killed_run_of_a_large_dag_goes_on_where_it_was(
    settings: Settings, tmp_path: Path, scale: CountScale, rng: random.Random
) -> None:
    instance = read_instance(NAME)
    file = tmp_path / "instance.json"
    file.write_text(json.dumps(instance))
    made = import_instance(file, tmp_path, Scale(LONGEST_MS, LARGEST_BYTES), settings, NAME)
    finish(settings, "agent", "register", str(catalog_root() / "agents" / "stand-in"))
    finish(settings, "workflow", "register", str(made.folder))
    command = ["run", NAME, "--isolation", "none"]
    kills = scale(small=2, full=20)
    run_id = ""
    kept: dict[str, StepRecord] = {}
    for _ in range(kills):
        told = kill_after(start(settings, *command), rng.randint(1, 900 // kills))
        run_id = run_id or _RUN_ID.findall(told)[0]
        command = ["runs", "resume", run_id]
        now = await finished_steps(settings, run_id)
        assert now.items() >= kept.items(), "a finished step was run again, or lost"
        kept = now
    assert 0 < len(kept) < made.steps
    finish(settings, *command)
    async with open_records(settings) as records:
        run, steps = await records.run(run_id), await records.store.list_steps(run_id)
    assert {step.step_id: step for step in steps}.items() >= kept.items()
    check_run(run, steps, expect(instance, LONGEST_MS, LARGEST_BYTES))
