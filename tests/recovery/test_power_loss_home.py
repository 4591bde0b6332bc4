"""The power fails while a home is made, packages are registered, files are kept and runs driven."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.kernel.settings import Settings
from swarm.packages.reading import read_package
from tests.conftest import Scale
from tests.recovery.kills.agents import write_agents
from tests.recovery.kills.journal import query
from tests.recovery.kills.judging import check_run
from tests.recovery.kills.workflows import Flow, draw_flow
from tests.recovery.power import home_program
from tests.recovery.power.recording import COMPILER, Recording

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
FLOWS = 3
_REFERENCE = re.compile(r"sha256:[0-9a-f]{64}")


@pytest.fixture
def flows(rng: random.Random) -> dict[str, Flow]:
    names = [f"flow-{number}" for number in range(FLOWS)]
    return {name: draw_flow(name, rng, quick=True) for name in names}


@pytest.fixture
def recording(tmp_path: Path, memory: Path, recorder: Path, flows: dict[str, Flow]) -> Recording:
    sources = tmp_path / "sources"
    write_agents(sources / "agents")
    for flow in flows.values():
        (sources / f"{flow.name}.yaml").write_text(flow.text())
    recording = Recording(memory / "home", recorder)
    (recording.root / "told").touch()
    recording.run([sys.executable, home_program.__file__, recording.root, sources])
    return recording


async def test_whatever_a_home_promised_it_keeps(
    recording: Recording, flows: dict[str, Flow], rng: random.Random, scale: Scale
) -> None:
    for disk, state in recording.states(scale(small=12, full=120), rng):
        await check_home(state / "home", disk.now("told").decode().splitlines(), flows)


async def check_home(home: Path, told: list[str], flows: dict[str, Flow]) -> None:
    promised: dict[str, set[str]] = {}
    for line in told:
        kind, name = line.split()
        promised.setdefault(kind, set()).add(name)
    async with open_swarm(Settings(home=home), role="run") as swarm:
        agents = await swarm.store.list_agents()
        assert promised.get("agent", set()) <= {agent.name for agent in agents}
        for agent in agents:
            assert read_package(Path(agent.path), swarm.settings).digest == agent.digest
        workflows = {workflow.name for workflow in await swarm.store.list_workflows()}
        assert promised.get("workflow", set()) <= workflows
        check_artifacts(swarm, promised.get("artifact", set()) | references(home))
        states = {row["id"]: row["status"] for row in query(home, "SELECT * FROM workflow_runs")}
        assert promised.get("run", set()) <= states.keys()
        ended = {run_id for run_id, state in states.items() if state in ("succeeded", "failed")}
        assert promised.get("ended", set()) <= ended
        for run in await swarm.runs.resume():
            await swarm.runs.wait(run.id)
    for row in query(home, "SELECT * FROM workflow_runs"):
        check_run(home, row["id"], flows[row["workflow_name"]], json.loads(row["inputs"])["number"])


def references(home: Path) -> set[str]:
    """The artifacts that steps have been recorded to have given."""
    rows = query(home, "SELECT outputs FROM step_executions WHERE outputs IS NOT NULL")
    return {reference for row in rows for reference in _REFERENCE.findall(row["outputs"])}


def check_artifacts(swarm: Swarm, promised: Iterable[str]) -> None:
    for reference in promised:
        content = swarm.artifacts.path(reference).read_bytes()
        assert reference == f"sha256:{hashlib.sha256(content).hexdigest()}"
