"""What a follower knows of a run, and how it is told as lines."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.cli.render.lines import LineDisplay
from swarm.cli.render.progress import FINAL, RunView, visible
from swarm.cli.terminal import Terminal
from swarm.engine.events import RunEvent

TIME = "2026-01-31T12:00:01.000000Z"


def event(kind: Any, step: str | None = None, **data: Any) -> RunEvent:
    return RunEvent("run_1", kind, step, data, TIME)


def view(*steps: str) -> RunView:
    return RunView.of("run_1", "w@1.0.0", steps)


def test_a_step_goes_through_its_states() -> None:
    seen = view("a")
    step = seen.steps["a"]
    seen.apply(event("step.started", "a", attempt=1))
    assert (step.state, seen.status) == ("running", "running")
    seen.apply(event("step.progress", "a", fraction=0.5, message="half"))
    assert (step.fraction, step.message) == (0.5, "half")
    seen.apply(event("step.retrying", "a", error="boom", delay_seconds=2))
    assert (step.state, step.error) == ("waiting", "boom")
    seen.apply(event("step.started", "a", attempt=2))
    assert (step.state, step.attempt, step.error) == ("running", 2, "")
    seen.apply(event("step.finished", "a", status="succeeded", duration_ms=7))
    assert (step.state, step.duration_ms) == ("succeeded", 7)
    seen.apply(event("run.finished", status="succeeded", outputs={}))
    assert seen.is_finished


EVENTS = st.one_of(
    st.builds(lambda step: event("step.started", step, attempt=1), st.sampled_from("abc")),
    st.builds(
        lambda step, status: event("step.finished", step, status=status, duration_ms=1),
        st.sampled_from("abc"),
        st.sampled_from(sorted(FINAL)),
    ),
    st.builds(
        lambda step: event("step.progress", step, fraction=None, message="m"),
        st.sampled_from("abc"),
    ),
    st.builds(
        lambda step: event("log", step, stream="log", level="info", message="m"),
        st.sampled_from("abc"),
    ),
    st.builds(
        lambda step: event("step.retrying", step, error="e", delay_seconds=1),
        st.sampled_from("abc"),
    ),
)


@given(st.lists(EVENTS, max_size=30))
def test_the_last_word_on_a_step_counts_and_talk_never_changes_its_state(
    events: list[RunEvent],
) -> None:
    seen = view("a", "b")
    expected = dict.fromkeys("ab", "pending")
    for one in events:
        seen.apply(one)
        assert one.step_id is not None
        if one.kind == "step.started":
            expected[one.step_id] = "running"
        elif one.kind == "step.retrying":
            expected[one.step_id] = "waiting"
        elif one.kind == "step.finished":
            expected[one.step_id] = one.data["status"]
        else:
            expected.setdefault(one.step_id, "pending")
    assert {name: step.state for name, step in seen.steps.items()} == expected


@given(
    st.lists(st.sampled_from(["pending", "running", "succeeded", "failed"]), max_size=40),
    st.integers(1, 20),
)
def test_what_matters_most_is_visible(states: list[str], rows: int) -> None:
    seen = view(*(f"s{index}" for index in range(len(states))))
    for step, state in zip(seen.steps.values(), states, strict=True):
        step.state = state
    shown, hidden = visible(seen, rows)
    assert len(shown) + hidden == len(states)
    order = list(seen.steps.values())
    assert [order.index(step) for step in shown] == sorted(order.index(step) for step in shown)
    left_out = [step for step in order if step not in shown]
    if any(step.state == "running" for step in left_out):
        assert all(step.state in ("running", "failed") for step in shown)


def lines(*events: RunEvent, logs: bool = False, prefix: str = "") -> list[str]:
    stream = io.StringIO()
    terminal = Terminal(stream, is_terminal=False, color=False, unicode=True, width=80)
    with LineDisplay(view("first", "b"), terminal, logs=logs, prefix=prefix) as display:
        for one in events:
            display.show(one)
    return [line.partition(" ")[2] for line in stream.getvalue().splitlines()]


def test_each_change_is_a_line() -> None:
    assert lines(
        event("run.started", resumed=True),
        event("step.started", "b", attempt=1),
        event("step.retrying", "b", error="boom\nbang", delay_seconds=0.5),
        event("step.started", "b", attempt=2),
        event("step.finished", "b", status="failed", error="boom\n  remedy: x", duration_ms=1_200),
        event("step.finished", "first", status="skipped"),
        event("notify", level="info", message="told"),
        event("run.finished", status="failed", error="boom"),
    ) == [
        "run  run_1 resumed",
        "step b      started",
        "step b      failed, again in 500 ms: boom / bang",
        "step b      started (attempt 2)",
        "step b      failed in 1.2 s: boom",
        "step first  skipped",
        "note info: told",
    ]


def test_only_grave_log_lines_are_told_unless_all_are_asked_for() -> None:
    events = [
        event("log", "b", stream="log", level="info", message="fine"),
        event("log", "b", stream="log", level="error", message="bad \x1b[2J"),
    ]
    assert lines(*events) == ["step b      error: bad \\x1b[2J"]
    assert lines(*events, logs=True)[0] == "step b      info: fine"


def test_items_are_counted_and_told_in_parts() -> None:
    seen = view("each")
    stream = io.StringIO()
    terminal = Terminal(stream, is_terminal=False, color=False, unicode=True, width=80)
    display = LineDisplay(seen, terminal, logs=False)
    display.show(event("step.started", "each", attempt=1, items=100))
    for index in range(100):
        display.show(event("item.started", "each", index=index, attempt=1))
    assert seen.steps["each"].items_text() == "0 of 100 items, 100 running"
    for index in range(99):
        display.show(
            event(
                "item.finished", "each", index=index, status="succeeded", ended=index + 1, items=100
            )
        )
    display.show(event("item.retrying", "each", index=99, error="boom", delay_seconds=2))
    assert seen.steps["each"].items_text() == "99 of 100 items, 1 waiting"
    display.show(event("item.finished", "each", index=99, status="failed", error="boom"))
    step = seen.steps["each"]
    assert (step.state, step.fraction, step.message) == (
        "running",
        1.0,
        "100 of 100 items, 1 failed",
    )
    lines = stream.getvalue().splitlines()
    assert len(lines) == 12, lines  # the start, nine tenths, the next attempt, the failure
    display.show(event("step.finished", "each", status="succeeded"))
    display.show(event("item.finished", "each", index=3, status="succeeded"))
    assert seen.steps["each"].state == "succeeded"
    assert len(stream.getvalue().splitlines()) == 13


WAITS = [
    (
        {"for": "approval", "details": {"message": "Go?\x1b[2J", "form": [{"name": "a"}]}},
        ["an approval: Go?\\x1b[2J", "swarm runs approve run_1 a --value a=STRING"],
    ),
    (
        {"for": "event", "details": {"name": "it's", "key": None}},
        ["the event it's", "swarm events send 'it'\"'\"'s'"],
    ),
    ({"for": "timer", "details": {}, "wake_at": TIME}, ["the time: "]),
    ({"for": "retry", "details": None, "wake_at": TIME}, ["its next attempt at "]),
]


@pytest.mark.parametrize(("data", "wanted"), WAITS)
def test_a_step_that_waits_says_for_what_and_how_to_answer(
    data: dict[str, Any], wanted: list[str]
) -> None:
    seen = view("a")
    stream = io.StringIO()
    terminal = Terminal(stream, is_terminal=False, color=False, unicode=True, width=80)
    display = LineDisplay(seen, terminal, logs=False)
    display.show(event("step.waiting", "a", index=-1, **data))
    assert seen.steps["a"].state == "waiting"
    text = stream.getvalue()
    assert all(part in text for part in wanted), text
    assert "\x1b" not in text
    display.show(event("run.waiting", wake_at=TIME))
    assert seen.status == "waiting"
    display.show(event("step.finished", "a", status="succeeded"))
    assert seen.status == "running"
