"""Doing a run again with something changed: from a step, with other inputs, with pinned results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm
from swarm.engine.api import ForkRequest
from swarm.kernel.errors import ConflictError, InputError, NotFoundError
from swarm.store.records import NO_ITEM, RunRecord, RunState

Start = Callable[..., Awaitable[RunRecord]]

FLOW = """
inputs: [{{name: number, type: integer, default: 1}}]
steps:
  - {{id: a, agent: actor, inputs: {{number: "${{inputs.number}}", notes: "{notes}"}}}}
  - id: each
    agent: actor
    for_each: [10, 20]
    inputs: {{number: "${{item + steps.a.outputs.number}}", notes: "{notes}"}}
  - id: b
    agent: actor
    inputs: {{number: "${{steps.each.outputs|map(attribute='number')|sum}}", notes: "{notes}"}}
  - {{id: aside, agent: actor, inputs: {{notes: "{notes}"}}}}
outputs: {{number: "${{steps.b.outputs.number}}"}}
on_success: [{{step: {{id: done, agent: actor, inputs: {{notes: "{notes}"}}}}}}]
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


@pytest.fixture
async def origin(finish: Start, notes: Path) -> RunRecord:
    run = await finish(FLOW.format(notes=notes))
    assert run.outputs == {"number": 37}, run.error
    notes.unlink()
    return run


@pytest.fixture
def fork(swarm: Swarm) -> Callable[[ForkRequest], Awaitable[RunRecord]]:
    async def fork_and_finish(request: ForkRequest) -> RunRecord:
        run = await swarm.runs.fork(request)
        await swarm.runs.start(run.id)
        return await swarm.runs.wait(run.id)

    return fork_and_finish


Fork = Callable[[ForkRequest], Awaitable[RunRecord]]


def ran(notes: Path) -> list[str]:
    return sorted(line.split()[0] for line in notes.read_text().splitlines())


async def test_from_a_step_on_the_results_before_it_stand(
    swarm: Swarm, origin: RunRecord, fork: Fork, notes: Path
) -> None:
    run = await fork(ForkRequest(origin.id, from_steps=("b",)))
    assert (run.status, run.outputs) == (RunState.SUCCEEDED, {"number": 37}), run.error
    assert ran(notes) == ["b", "done"]
    assert run.origin_run_id == origin.id
    steps = {step.key: step for step in await swarm.store.list_steps(run.id)}
    assert steps["each", 1].reused_from == steps["a", NO_ITEM].reused_from == origin.id
    assert steps["b", NO_ITEM].reused_from is None


async def test_changed_inputs_of_a_step(origin: RunRecord, fork: Fork, notes: Path) -> None:
    run = await fork(ForkRequest(origin.id, step_inputs={"each": {"number": 5}}))
    assert run.outputs == {"number": 13}
    assert ran(notes) == ["b", "done", "each", "each"]


async def test_changed_inputs_of_the_run(origin: RunRecord, fork: Fork, notes: Path) -> None:
    run = await fork(ForkRequest(origin.id, inputs={"number": 2}))
    assert run.outputs == {"number": 39}
    assert ran(notes) == ["a", "aside", "b", "done", "each", "each"]
    kept = await fork(ForkRequest(origin.id, inputs={"number": 2}, from_steps=("b",)))
    assert kept.outputs == {"number": 37}  # what `a` gave for the other input stands


async def test_pinned_outputs(origin: RunRecord, fork: Fork, notes: Path) -> None:
    run = await fork(ForkRequest(origin.id, pinned={"a": {"number": 0}, "each": None}))
    assert run.outputs == {"number": 37}
    assert ran(notes) == ["aside", "b", "done"]
    notes.unlink()
    given = await fork(ForkRequest(origin.id, pinned={"a": {"number": 100}}))
    assert given.outputs == {"number": 233}
    assert ran(notes) == ["aside", "b", "done", "each", "each"]


async def test_a_failed_run_is_forked_with_what_had_succeeded(
    swarm: Swarm, finish: Start, fork: Fork, tmp_path: Path, notes: Path
) -> None:
    needed = tmp_path / "needed"
    failed = await finish(
        f"""
steps:
  - {{id: a, agent: actor, inputs: {{notes: "{notes}"}}}}
  - {{id: b, agent: actor, inputs: {{require: "{needed}", notes: "{notes}"}}, needs: [a]}}
  - {{id: c, agent: actor, inputs: {{notes: "{notes}"}}, needs: [b]}}
"""
    )
    assert failed.status is RunState.FAILED
    needed.touch()
    notes.unlink()
    run = await fork(ForkRequest(failed.id, from_steps=("c",)))
    assert run.status is RunState.SUCCEEDED, run.error
    assert ran(notes) == ["b", "c"]  # `b` had not succeeded, so it cannot be taken over


async def test_mistakes(swarm: Swarm, origin: RunRecord) -> None:
    for request, error, message in (
        (ForkRequest(origin.id, from_steps=("x",)), NotFoundError, "no step x"),
        (ForkRequest(origin.id, pinned={"done": None}), NotFoundError, "no step done"),
        (ForkRequest(origin.id, pinned={"a": {}}, from_steps=("a",)), InputError, "pinned"),
        (ForkRequest(origin.id, pinned={"each": {"number": 1}}), InputError, "runs over items"),
        (ForkRequest(origin.id, inputs={"nothing": 1}), InputError, "nothing"),
        (ForkRequest("run_none"), NotFoundError, "run_none"),
    ):
        with pytest.raises(error, match=message):
            await swarm.runs.fork(request)


async def test_what_has_no_outputs_cannot_be_pinned(swarm: Swarm, finish: Start) -> None:
    failed = await finish("steps: [{id: a, agent: actor, inputs: {fail: no}}]")
    with pytest.raises(ConflictError, match="no outputs to pin"):
        await swarm.runs.fork(ForkRequest(failed.id, pinned={"a": None}))
