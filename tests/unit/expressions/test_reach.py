"""Steps that can never run are found, and only those."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.definitions.loading import parse_workflow
from swarm.definitions.workflow import PlacedStep, WorkflowDefinition
from swarm.engine.plan import Plan, Progress
from swarm.expressions.checking import check_workflow
from swarm.expressions.dependencies import step_dependencies
from swarm.store.records import StepState


def flow(text: str) -> WorkflowDefinition:
    return parse_workflow(f"name: w\nversion: 1.0.0\nsteps: {text}", "w")


def never_run(workflow: WorkflowDefinition) -> dict[str, str]:
    """The steps that are said never to run, with the reason."""
    found = {}
    for problem in check_workflow(workflow, None, "w", None):
        assert problem.remedy
        assert " never runs: " in problem.message, problem.message
        start, _, reason = problem.message.partition(" never runs: ")
        found[start.removeprefix("the step `").removesuffix("`")] = reason
    return found


@pytest.mark.parametrize(
    ("steps", "never"),
    [
        ("[{id: a, agent: x, when: false}]", {"a"}),
        ("[{id: a, agent: x, when: true}]", set()),
        ("[{id: a, agent: x, when: '${1 == 2}'}]", {"a"}),
        ("[{id: a, agent: x, when: false}, {id: b, agent: x, needs: [a]}]", {"a", "b"}),
        ("[{id: a, agent: x, when: false}, {id: b, agent: x, needs: [a], when: true}]", {"a"}),
        (
            "[{id: a, agent: x, on_error: {steps: [{id: h, agent: x}]}},"
            " {id: b, agent: x, needs: [h]}]",
            {"b"},
        ),
        (
            "[{id: a, agent: x, on_error: {steps: [{id: h, agent: x}], then: continue}},"
            " {id: b, agent: x, needs: [h]}]",
            set(),
        ),
        (
            "[{id: a, agent: x, on_error: {steps: [{id: h, agent: x}]}},"
            " {id: b, agent: x, needs: [h], when: '${not steps.a.error}'}]",
            set(),
        ),
        (
            "[{id: a, agent: x, on_error: {steps: [{id: h, agent: x, needs: [b]}]}},"
            " {id: b, agent: x, needs: [a]}]",
            {"h"},
        ),
        (
            "[{id: b, agent: x, needs: [a]},"
            " {id: a, agent: x, on_error:"
            " {then: continue, steps: [{id: h, agent: x, needs: [b]}]}}]",
            set(),
        ),
        ("[{id: a, wait: {duration: 1}, on_error: {steps: [{id: h, agent: x}]}}]", {"h"}),
        ("[{id: a, wait: {event: {name: e}}, on_error: {steps: [{id: h, agent: x}]}}]", {"h"}),
        (
            "[{id: a, wait: {event: {name: e, deadline: 1}},"
            " on_error: {steps: [{id: h, agent: x}]}}]",
            set(),
        ),
        (
            "[{id: a, wait: {approval: {message: m}}, on_error: {steps: [{id: h, agent: x}]}}]",
            set(),
        ),
        (
            "[{id: a, wait: {duration: '${run.id}'}, on_error: {steps: [{id: h, agent: x}]}}]",
            set(),
        ),
        (
            "[{id: a, agent: x, when: false, on_error: {then: continue,"
            " steps: [{id: h, agent: x}, {id: i, agent: x, when: true}]}}]",
            {"a", "h", "i"},
        ),
    ],
)
def test_what_never_runs_is_found(steps: str, never: set[str]) -> None:
    assert never_run(flow(steps)).keys() == never


@st.composite
def graphs(draw: st.DrawFn) -> str:
    """Small DAGs with handlers, constant conditions and failures that the run survives."""
    made: list[str] = []
    texts = []

    def step(name: str, more: str = "") -> str:
        needs = draw(st.lists(st.sampled_from(made), max_size=2, unique=True)) if made else []
        when = draw(st.sampled_from(["", "", "", "when: false, ", "when: '${run.id == 1}', "]))
        return f"{{id: {name}, agent: x, needs: [{', '.join(needs)}], {when}{more}}}"

    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        then = draw(st.sampled_from(["fail", "continue"]))
        more = f"on_error: {then}"
        handlers = []
        if draw(st.booleans()):
            handlers = [step(f"h{name}")]
            more = f"on_error: {{then: {then}, steps: [{handlers[0]}]}}"
        texts.append(step(name, more))
        made += [name, *(f"h{name}" for _ in handlers)]
    return f"[{', '.join(texts)}]"


def runs_somehow(workflow: WorkflowDefinition) -> set[str]:
    """Every step that runs in some run, by the rules of the engine."""
    placed = {one.step.id: one for one in workflow.placed_steps()}
    plan = Plan.of(
        step_dependencies(workflow),
        conditional=(step for step, one in placed.items() if one.step.when is not None),
        tolerant=(step for step, one in placed.items() if one.step.tolerates_failure),
        guards={step: one.guard for step, one in placed.items() if one.guard is not None},
    )
    ends = (StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED)
    choices = [ends if isinstance(one.step.when, str) else ends[:2] for one in placed.values()]
    seen: set[str] = set()
    for outcomes in product(*choices):
        outcome = dict(zip(placed, outcomes, strict=True))
        for first in (StepState.SUCCEEDED, StepState.FAILED):
            seen |= _one_run(plan, placed, outcome, first)
    return seen


def _one_run(
    plan: Plan,
    placed: Mapping[str, PlacedStep],
    outcome: Mapping[str, StepState],
    first: StepState,
) -> set[str]:
    """The steps that run when each ends as ``outcome`` says, those that end as ``first`` first."""
    progress, seen = Progress(plan), set()
    waiting = progress.reachable()
    while waiting:
        waiting.sort(key=lambda step: outcome[step] is not first)
        step = waiting.pop(0)
        if not progress.may_start(step):
            continue
        state = outcome[step]
        if progress.is_skipped(step) or placed[step].step.when is False:
            state = StepState.SKIPPED
        if state is not StepState.SKIPPED:
            seen.add(step)
        waiting += progress.end(step, state)
    return seen


@given(graphs())
def test_no_step_that_could_run_is_refused(text: str) -> None:
    workflow = flow(text)
    never = never_run(workflow).keys()
    assert not never & runs_somehow(workflow)
