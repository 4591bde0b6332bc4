"""A whole Swarm in one process, and one agent that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.engine.api import RunRequest
from swarm.kernel.settings import SecretStr, Settings
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunRecord

ACTOR = """\
name: actor
version: 1.0.0
runtime: {type: python, entry: main.py, timeout_seconds: 30}
permissions: {secrets: [TOKEN]}
inputs:
  - {name: say, type: string, default: ""}
  - {name: number, type: integer, default: 0}
  - {name: fail, type: string, default: "", description: "Raise with this message."}
  - {name: fail_times, type: integer, default: 0, description: "Fail that often, then succeed."}
  - {name: notes, type: string, default: "", description: "A file to note each execution in."}
  - {name: wait_for, type: string, default: "", description: "A path to wait for."}
  - {name: require, type: string, default: "", description: "A path that must be there."}
  - {name: touch, type: string, default: "", description: "A file to make first."}
  - {name: secret, type: string, required: false}
outputs:
  - {name: said, type: string}
  - {name: number, type: integer}
  - {name: attempt, type: integer}
"""

ACTOR_CODE = """\
import asyncio
from pathlib import Path


async def handler(inputs, context):
    if inputs["touch"]:
        Path(inputs["touch"]).touch()
    if inputs["notes"]:
        with open(inputs["notes"], "a") as file:
            file.write(f"{context.step_id} {context.attempt} {context.idempotency_key}\\n")
    while inputs["wait_for"] and not Path(inputs["wait_for"]).exists():
        await asyncio.sleep(0.005)
    if inputs["require"] and not Path(inputs["require"]).exists():
        raise FileNotFoundError(inputs["require"])
    if inputs["fail"] or context.attempt <= inputs["fail_times"]:
        raise ValueError(inputs["fail"] or f"attempt {context.attempt} fails")
    context.log.info(f"secret is {inputs['secret']}")
    return {
        "said": inputs["say"] + (inputs["secret"] or ""),
        "number": inputs["number"] + 1,
        "attempt": context.attempt,
    }
"""


@pytest.fixture(params=["sqlite", "postgres"])
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """On either database: alone in its fleet, a process on PostgreSQL drives what it starts."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    return Settings(
        home=tmp_path / "home",
        database_url=SecretStr(url) if url else None,
        max_concurrent_invocations=8,
        idle_seconds=0.05,
    )


@pytest.fixture
async def swarm(settings: Settings, tmp_path: Path) -> AsyncIterator[Swarm]:
    async with open_swarm(settings, role="test") as opened:
        folder = tmp_path / "actor"
        folder.mkdir()
        (folder / "agent.yaml").write_text(ACTOR)
        (folder / "main.py").write_text(ACTOR_CODE)
        await opened.agents.register(folder)
        yield opened


Start = Callable[..., Awaitable[RunRecord]]


@pytest.fixture
def start(swarm: Swarm, tmp_path: Path) -> Start:
    """Register a workflow of these steps, start a run of it here, and return it."""

    async def start_run(
        text: str, inputs: dict[str, Any] | None = None, *, name: str = "flow"
    ) -> RunRecord:
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"name: {name}\nversion: 1.0.0\n{text}")
        await swarm.workflows.register(file)
        request = RunRequest(name, inputs or {}, isolation=Isolation.NONE)
        run = await swarm.runs.create(request)
        assert await swarm.runs.start(run.id)
        return run

    return start_run


@pytest.fixture
def finish(swarm: Swarm, start: Start) -> Start:
    """Like ``start``, and wait until the run has ended."""

    async def finish_run(*arguments: Any, **named: Any) -> RunRecord:
        run = await start(*arguments, **named)
        return await swarm.runs.wait(run.id)

    return finish_run


Register = Callable[[str, str], Awaitable[None]]


@pytest.fixture
def register(swarm: Swarm, tmp_path: Path) -> Register:
    """Register a workflow without starting it."""

    async def register_workflow(name: str, text: str) -> None:
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"name: {name}\nversion: 1.0.0\n{text}")
        await swarm.workflows.register(file)

    return register_workflow


async def appears(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110 - another task's file has no event to wait for
        await asyncio.sleep(0.005)
