"""The order of steps: rules by example, and invariants over random DAGs."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from swarm.engine.plan import Plan, Progress
from swarm.store.records import StepState


def plan_of(edges: dict[str, set[str]], **marks: Any) -> Plan:
    return Plan.of({step: frozenset(needed) for step, needed in edges.items()}, **marks)


DIAMOND = {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}}


def test_a_diamond_opens_in_the_middle_and_joins() -> None:
    progress = Progress(plan_of(DIAMOND))
    assert progress.reachable() == ["a"]
    assert progress.end("a", StepState.SUCCEEDED) == ["b", "c"]
    assert progress.end("c", StepState.SUCCEEDED) == []
    assert progress.end("b", StepState.SUCCEEDED) == ["d"]
    assert progress.end("d", StepState.SUCCEEDED) == []
    assert progress.done
    assert not progress.failed


def test_nothing_starts_after_a_fatal_failure() -> None:
    progress = Progress(plan_of(DIAMOND))
    progress.end("a", StepState.SUCCEEDED)
    assert progress.end("b", StepState.FAILED) == []
    assert progress.end("c", StepState.SUCCEEDED) == []
    assert progress.failed
    assert progress.unreached == ["d"]
    assert progress.reachable() == []


def test_a_tolerated_failure_lets_the_run_go_on() -> None:
    progress = Progress(plan_of(DIAMOND, tolerant={"b"}))
    progress.end("a", StepState.SUCCEEDED)
    progress.end("b", StepState.FAILED)
    assert progress.end("c", StepState.SUCCEEDED) == ["d"]
    assert not progress.failed
    assert not progress.is_skipped("d")


def test_a_skipped_dependency_skips_unless_the_step_has_its_own_condition() -> None:
    edges = {"a": set[str](), "b": {"a"}, "c": {"a"}}
    progress = Progress(plan_of(edges, conditional={"c"}))
    progress.end("a", StepState.SKIPPED)
    assert progress.is_skipped("b")
    assert not progress.is_skipped("c")


def test_handlers_start_when_their_step_has_failed_and_are_skipped_otherwise() -> None:
    edges = {"a": set[str](), "undo": {"a"}, "tell": {"a", "undo"}, "b": {"a"}}
    progress = Progress(plan_of(edges, guards={"undo": "a", "tell": "a"}))
    assert progress.end("a", StepState.FAILED) == ["undo"]
    assert progress.failed
    assert not progress.is_skipped("undo")
    assert progress.end("undo", StepState.SUCCEEDED) == ["tell"]
    assert progress.end("tell", StepState.SUCCEEDED) == []
    assert progress.unreached == ["b"]
    fine = Progress(plan_of(edges, guards={"undo": "a", "tell": "a"}))
    assert fine.end("a", StepState.SUCCEEDED) == ["undo", "b"]
    assert fine.is_skipped("undo")


def test_downstream_is_what_a_change_reaches() -> None:
    plan = plan_of(DIAMOND)
    assert plan.downstream("b") == {"b", "d"}
    assert plan.downstream("a") == {"a", "b", "c", "d"}


def test_a_resumed_run_goes_on_where_it_was() -> None:
    ended = {"a": StepState.SUCCEEDED, "b": StepState.SUCCEEDED}
    progress = Progress(plan_of(DIAMOND), ended)
    assert progress.reachable() == ["c"]
    assert progress.end("c", StepState.SUCCEEDED) == ["d"]


@st.composite
def dags(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(1, 12))
    names = [f"s{index}" for index in range(size)]
    edges = {
        name: set(draw(st.lists(st.sampled_from(names[:index]), max_size=4))) if index else set()
        for index, name in enumerate(names)
    }
    marks = st.sets(st.sampled_from(names))
    guards = {
        name: draw(st.sampled_from(sorted(edges[name]))) for name in draw(marks) if edges[name]
    }
    return plan_of(edges, conditional=draw(marks), tolerant=draw(marks), guards=guards)


ENDS = st.sampled_from([StepState.SUCCEEDED, StepState.SUCCEEDED, StepState.FAILED])


@given(dags(), st.data())
def test_every_step_is_reached_once_and_after_its_dependencies(
    plan: Plan, data: st.DataObject
) -> None:
    progress = Progress(plan)
    open_steps = list(progress.reachable())
    seen: set[str] = set(open_steps)
    ended: dict[str, StepState] = {}
    while open_steps:
        step = open_steps.pop(data.draw(st.integers(0, len(open_steps) - 1)))
        assert plan.dependencies[step] <= ended.keys()
        state = StepState.SKIPPED if progress.is_skipped(step) else data.draw(ENDS)
        ended[step] = state
        newly = progress.end(step, state)
        assert not seen & set(newly)
        seen |= set(newly)
        open_steps += newly
        # A process that reads the journal now comes to the same conclusion.
        open_steps = [other for other in open_steps if progress.may_start(other)]
        again = Progress(plan, ended)
        assert again.failed == progress.failed
        assert set(again.reachable()) == set(open_steps)
        for other in open_steps:
            assert again.is_skipped(other) == progress.is_skipped(other)
            guard = plan.guards.get(other)
            if progress.failed:
                assert guard is not None and ended[guard] is StepState.FAILED
            if guard is not None and ended[guard] is not StepState.FAILED:
                assert progress.is_skipped(other)
    assert progress.done or progress.failed
    assert set(progress.unreached) == plan.dependencies.keys() - ended.keys()
