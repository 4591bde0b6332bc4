"""What a manifest demands of its isolation is a minimum: no run falls below it in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm
from swarm.engine.invocations import GuestListener
from swarm.kernel.errors import SandboxUnavailable
from swarm.sandbox.ports import Isolation
from tests.integration.engine.conftest import ACTOR, ACTOR_CODE, Start


@pytest.fixture
async def demanding(swarm: Swarm, tmp_path: Path) -> str:
    """An agent that demands a virtual machine, where there is no image for any."""
    folder = tmp_path / "demanding"
    folder.mkdir()
    text = ACTOR.replace("name: actor\n", "name: demanding\n", 1)
    text = text.replace("{type: python,", "{type: python, isolation: microvm,")
    (folder / "agent.yaml").write_text(text)
    (folder / "main.py").write_text(ACTOR_CODE)
    await swarm.agents.register(folder)
    return "demanding"


@pytest.mark.parametrize("chosen", [Isolation.NONE, Isolation.SANDBOX, Isolation.MICROVM])
async def test_an_agent_that_demands_a_machine_runs_in_nothing_less(
    swarm: Swarm, demanding: str, tmp_path: Path, chosen: Isolation
) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(SandboxUnavailable) as caught:
        await swarm.invoker.invoke(
            demanding, {"touch": str(trace)}, listener=GuestListener(), isolation=chosen
        )
    assert "build-image" in (caught.value.remedy or "") or "qemu" in (caught.value.remedy or "")
    assert not trace.exists()


async def test_a_step_that_demands_a_machine_fails_without_one(
    swarm: Swarm, finish: Start, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    run = await finish(
        f"steps:\n  - id: only\n    agent: actor\n    isolation: microvm\n"
        f"    inputs: {{touch: {trace}}}\n"
    )
    assert run.status == "failed"
    assert not trace.exists()
