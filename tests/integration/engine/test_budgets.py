"""Budgets of money and tokens: counted as agents tell, shared with called workflows, refused in
time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm
from swarm.store.records import RunFilter, RunRecord, RunState

Start = Callable[..., Awaitable[RunRecord]]

MANIFEST = """\
name: {name}
version: 1.0.0
runtime: {{type: {runtime}, entry: {entry}}}
inputs:
  - {{name: tokens, type: integer, default: 0}}
  - {{name: usd, type: number, default: 0}}
  - {{name: times, type: integer, default: 1}}
outputs: [{{name: done, type: integer}}]
"""
PYTHON = """\
def handler(inputs, context):
    for done in range(inputs["times"]):
        context.usage(tokens=inputs["tokens"], usd=inputs["usd"])
    return {"done": done + 1}
"""
NODE = """\
export async function handler(inputs, context) {
  for (let done = 0; done < inputs.times; done++) {
    await context.usage({ tokens: inputs.tokens, usd: inputs.usd });
  }
  return { done: inputs.times };
}
"""


@pytest.fixture(autouse=True)
async def spenders(swarm: Swarm, tmp_path: Path) -> None:
    for name, runtime, entry, code in (
        ("spender", "python", "main.py", PYTHON),
        ("node-spender", "node", "main.mjs", NODE),
    ):
        folder = tmp_path / name
        folder.mkdir()
        manifest = MANIFEST.format(name=name, runtime=runtime, entry=entry)
        (folder / "agent.yaml").write_text(manifest)
        (folder / entry).write_text(code)
        await swarm.agents.register(folder)


@pytest.mark.parametrize("agent", ["spender", "node-spender"])
async def test_what_an_agent_used_is_recorded(swarm: Swarm, finish: Start, agent: str) -> None:
    run = await finish(
        f"steps: [{{id: a, agent: {agent}, inputs: {{tokens: 10, usd: 0.25, times: 3}}}}]"
    )
    assert run.status is RunState.SUCCEEDED, run.error
    assert (run.total_api_tokens, run.total_cost_micros) == (30, 750_000)
    (invocation,) = await swarm.store.list_invocations(run.id)
    assert (invocation.tokens, invocation.cost_micros) == (30, 750_000)
    (step,) = await swarm.store.list_steps(run.id)
    assert (step.api_tokens_used, step.cost_micros) == (30, 750_000)


@pytest.mark.parametrize("agent", ["spender", "node-spender"])
async def test_an_agent_is_told_when_the_budget_is_used_up(
    swarm: Swarm, finish: Start, agent: str
) -> None:
    run = await finish(
        f"""
budget: {{tokens: 100}}
steps:
  - {{id: a, agent: {agent}, inputs: {{tokens: 40, times: 9}}, on_error: continue}}
  - {{id: b, agent: {agent}, inputs: {{tokens: 1}}, needs: [a], retry: {{attempts: 3}}}}
"""
    )
    assert (run.status, run.error_step, run.error_code) == (RunState.FAILED, "b", "budget")
    assert run.total_api_tokens == run.tree_api_tokens == 120  # told of before it was refused
    one, two = await swarm.store.list_invocations(run.id)
    assert "budget of tokens is used up" in (one.error or "")
    assert (two.error_code, two.attempt) == ("budget", 1)


async def test_a_budget_is_shared_with_called_workflows(
    swarm: Swarm, finish: Start, tmp_path: Path
) -> None:
    file = tmp_path / "called.yaml"
    file.write_text(
        "name: called\nversion: 1.0.0\nsteps: [{id: inner, agent: spender, inputs: {usd: 0.4}}]\n"
    )
    await swarm.workflows.register(file)
    run = await finish(
        """
budget: {usd: 1}
steps:
  - id: each
    workflow: called
    for_each: [1, 2, 3, 4, 5]
    max_parallel: 1
    on_error: continue
"""
    )
    codes = [error["code"] for error in run.step_results["each"]["errors"]]
    assert codes[-2:] == ["budget", "budget"]
    children = await swarm.store.list_runs(RunFilter(parent_run_id=run.id))
    assert sum(child.total_cost_micros for child in children) == run.tree_cost_micros == 1_200_000
    assert run.total_cost_micros == 0
