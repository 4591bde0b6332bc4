"""Random workflows end, and end alike each time: the engine keeps what checking promises."""

from __future__ import annotations

import json
import random
from pathlib import Path

from swarm.bootstrap.assembly import Swarm
from swarm.engine.api import RunRequest
from swarm.sandbox.ports import Isolation
from swarm.store.records import NO_ITEM, RunRecord, RunState
from tests.conftest import Scale
from tests.strategies.workflows import CHILD, HANDLER, MANIFEST, drawn


async def run(swarm: Swarm, name: str) -> tuple[RunRecord, dict[str, str]]:
    """Run a workflow to its end; the run, and the states of its steps."""
    created = await swarm.runs.create(RunRequest(name, {}, isolation=Isolation.NONE))
    assert await swarm.runs.start(created.id)
    ended = await swarm.runs.wait(created.id)
    steps = await swarm.store.list_steps(created.id)
    return ended, {each.step_id: each.status for each in steps if each.item_index == NO_ITEM}


async def test_random_workflows_end_alike_each_time(
    swarm: Swarm, tmp_path: Path, scale: Scale, rng: random.Random
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "agent.yaml").write_text(MANIFEST)
    (work / "main.py").write_text(HANDLER)
    await swarm.agents.register(work)
    (tmp_path / "child.yaml").write_text(CHILD)
    await swarm.workflows.register(tmp_path / "child.yaml")
    ended: set[RunState] = set()
    kinds = ("agent", "workflow", "duration", "until")
    count = scale(small=20, full=400)
    for index, document in enumerate(drawn(count, rng.randrange(2**32), kinds=kinds)):
        name = f"random-{index}"
        text = json.dumps({**document, "name": name}, ensure_ascii=False, indent=1)
        (tmp_path / "workflow.yaml").write_text(text)
        await swarm.workflows.register(tmp_path / "workflow.yaml")
        first, states = await run(swarm, name)
        again, states_again = await run(swarm, name)
        assert first.status is again.status, text
        assert first.status in (RunState.SUCCEEDED, RunState.FAILED), text
        ended.add(first.status)
        if first.status is RunState.SUCCEEDED:
            assert (first.outputs, states) == (again.outputs, states_again), text
    assert RunState.SUCCEEDED in ended
