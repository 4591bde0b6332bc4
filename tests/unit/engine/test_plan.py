"""The order of steps: rules by example, and invariants over random DAGs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.engine.plan import Plan, Progress
from swarm.store.records import StepState


def plan_of(edges: dict[str, set[str]], **marks: set[str]) -> Plan:
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
    return plan_of(edges, conditional=draw(marks), tolerant=draw(marks))


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
        again = Progress(plan, ended)
        assert again.failed == progress.failed
        if not progress.failed:
            assert set(again.reachable()) == set(open_steps)
    assert progress.done or progress.failed
    assert set(progress.unreached) == plan.dependencies.keys() - ended.keys()
