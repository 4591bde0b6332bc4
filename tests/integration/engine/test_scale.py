"""One run of thousands of steps or items: it ends, in bounded memory, at a flat cost per step."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.bootstrap.backends import Backends
from swarm.engine.api import RunRequest
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import (
    CallContext,
    GuestServices,
    InvocationResult,
    Isolation,
    Outcome,
    SandboxRequest,
)
from swarm.store.records import RunRecord, RunState
from tests.conftest import Scale

pytestmark = pytest.mark.alone
FLAT_FACTOR = 2.5
"""Cost of a step of the larger run over that of the smaller: what grew with the number of steps
would make it ten times as much."""
BYTES_PER_ITEM = 20_000

AGENT = """\
name: none
version: 1.0.0
runtime: {type: python, entry: main.py}
inputs: [{name: number, type: integer}, {name: text, type: string, default: ""}]
outputs: [{name: number, type: integer}]
"""


class Instant:
    """A sandbox that answers at once: what is measured is the engine."""

    id = "instant"
    isolation = Isolation.NONE
    layers = ("none",)

    async def prepare(self, request: SandboxRequest) -> Instant:
        return self

    async def call(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> InvocationResult:
        return InvocationResult(Outcome.OK, {"number": inputs["number"] + 1})

    async def outputs_descriptor(self) -> int:
        raise NotImplementedError("the agent has no files")

    async def destroy(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
async def instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Swarm]:
    monkeypatch.setattr(Backends, "__call__", lambda self, level: Instant())
    settings = Settings(home=tmp_path / "home", max_steps=10_000, max_workflow_mb=16)
    async with open_swarm(settings, role="test") as opened:
        folder = tmp_path / "none"
        folder.mkdir()
        (folder / "agent.yaml").write_text(AGENT)
        (folder / "main.py").write_text("def handler(inputs):\n    return {}\n")
        await opened.agents.register(folder)
        yield opened


Measure = Callable[..., Awaitable[tuple[RunRecord, float]]]


@pytest.fixture
def measure(instant: Swarm, tmp_path: Path) -> Measure:
    """Run a workflow; gives the run and the processor time per step, in microseconds."""

    async def run_and_measure(text: str, steps: int, items: int = 0) -> tuple[RunRecord, float]:
        file = tmp_path / f"flow-{steps}.yaml"
        file.write_text(f"name: flow-{steps}\nversion: 1.0.0\n{text}")
        await instant.workflows.register(file)
        inputs = {"numbers": list(range(items))} if items else {}
        request = RunRequest(f"flow-{steps}", inputs, isolation=Isolation.NONE)
        run = await instant.runs.create(request)
        begun = time.process_time()
        await instant.runs.start(run.id)
        ended = await instant.runs.wait(run.id)
        used = time.process_time() - begun
        assert ended.status is RunState.SUCCEEDED, ended.error
        return ended, used / steps * 1e6

    return run_and_measure


def layers(steps: int, width: int = 50) -> str:
    """A DAG of layers, each step of which reads two of the layer before."""
    lines = ["steps:"]
    for number in range(steps):
        above = number - width
        value = "0"
        if above >= 0:
            other = above + 1 if (above + 1) % width else above + 1 - width
            value = f'"${{steps.s{above}.outputs.number + steps.s{other}.outputs.number * 0}}"'
        lines.append(f"  - {{id: s{number}, agent: none, inputs: {{number: {value}}}}}")
    lines.append(f'outputs: {{last: "${{steps.s{steps - 1}.outputs.number}}"}}')
    return "\n".join(lines) + "\n"


ITEMS = """
inputs: [{name: numbers, type: array}]
steps:
  - id: each
    agent: none
    for_each: "${inputs.numbers}"
    max_parallel: 100
    inputs: {number: "${item}"}
outputs: {last: "${steps.each.outputs[-1].number}", count: "${steps.each.outputs|length}"}
"""


async def test_the_cost_of_a_step_does_not_grow_with_the_run(
    measure: Measure, scale: Scale, record_property: Callable[[str, object], None]
) -> None:
    large = scale(small=2_000, full=10_000)
    _, few = await measure(layers(large // 10), large // 10)
    run, many = await measure(layers(large), large)
    assert run.outputs == {"last": large // 50}
    record_property("measured", f"µs per step: {few:.0f} of {large // 10}, {many:.0f} of {large}")
    assert many < FLAT_FACTOR * few


async def test_the_cost_of_an_item_does_not_grow_and_memory_is_bounded(
    measure: Measure,
    instant: Swarm,
    scale: Scale,
    record_property: Callable[[str, object], None],
) -> None:
    large = scale(small=2_000, full=10_000)
    _, few = await measure(ITEMS, large // 10, large // 10)
    gc.collect()
    tracemalloc.start()
    run, _ = await measure(ITEMS, large - 1, large - 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert await instant.runs.value(run.outputs) == {"last": large - 1, "count": large - 1}
    _, many = await measure(ITEMS, large, large)
    record_property(
        "measured",
        f"µs per item: {few:.0f} of {large // 10}, {many:.0f} of {large}; peak {peak / 1e6:.0f} MB",
    )
    assert many < FLAT_FACTOR * few
    assert peak < BYTES_PER_ITEM * large
