"""The layout of a run's Gantt chart, and that drawing it never fails or lies about its width."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.cli.render.timeline import timeline_lines
from swarm.cli.render.timeline_svg import timeline_svg
from swarm.cli.terminal import Terminal, cell_width
from swarm.engine.timeline import Row, Span, Timeline, critical_path, lay_out, tick_text, ticks
from swarm.kernel.clock import to_text
from swarm.store.records import (
    NO_ITEM,
    InvocationRecord,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
)

BEGIN = datetime(2026, 1, 31, 12, tzinfo=UTC)
CHART = 1_000.0
"""Seconds of the runs that are drawn."""


def at(seconds: float) -> str:
    return to_text(BEGIN + timedelta(seconds=seconds))


def a_run(length: float = CHART) -> RunRecord:
    return RunRecord(
        "run_1", "w", "w<&>", "1.0.0", RunState.SUCCEEDED, started_at=at(0), completed_at=at(length)
    )


def step(
    name: str, start: float, end: float | None, item: int = NO_ITEM, **more: object
) -> StepRecord:
    status = StepState.SUCCEEDED if end is not None else StepState.RUNNING
    ended = None if end is None else at(end)
    fields = {"status": status, "started_at": at(start), "completed_at": ended, **more}
    return StepRecord(f"{name}{item}", "run_1", name, item, **fields)  # type: ignore[arg-type]


def attempt(name: str, number: int, start: float, end: float, status: str) -> InvocationRecord:
    return InvocationRecord(
        f"inv{number}", "a", "a", "1", "d", status, "run_1", name,
        attempt=number, started_at=at(start), completed_at=at(end),
    )  # fmt: skip


def terminal(*, unicode: bool) -> Terminal:
    return Terminal(io.StringIO(), is_terminal=False, color=False, unicode=unicode, width=100)


def test_attempts_pauses_waits_and_reused_results_are_told_apart() -> None:
    chart = lay_out(
        a_run(),
        [
            step("call", 0, 300),
            step("ask", 300, 900, wait_kind="approval"),
            step("old", -500, -400, reused_from="run_0"),
            step("skipped", 0, 0, status=StepState.SKIPPED),
        ],
        [attempt("call", 2, 200, 300, "ok"), attempt("call", 1, 0, 100, "error")],
        {"call": [], "ask": ["call"], "old": [], "skipped": []},
        at(CHART),
    )
    rows = {row.step_id: row for row in chart.rows}
    assert [(span.kind, span.start, span.end) for span in rows["call"].spans] == [
        ("failed", 0, 100),
        ("pause", 100, 200),
        ("attempt", 200, 300),
    ]
    assert [span.kind for span in rows["ask"].spans] == ["wait"]
    assert [(span.kind, span.end) for span in rows["old"].spans] == [("reused", 0)]
    assert rows["skipped"].spans == ()
    assert {name for name, row in rows.items() if row.is_critical} == {"call", "ask"}


def test_what_is_under_way_ends_now() -> None:
    run = RunRecord("run_1", "w", "w", "1.0.0", RunState.RUNNING, started_at=at(0))
    running = step("a", 2, None, attempt=1, attempt_started_at=at(2))
    chart = lay_out(run, [running], [], {}, at(10))
    assert chart.seconds == 10
    assert [(span.kind, span.start, span.end) for span in chart.rows[0].spans] == [
        ("running", 2, 10)
    ]


def test_items_that_failed_or_took_longest_are_shown_and_the_others_folded() -> None:
    items = [step("each", index, index + 1 + index % 7, index) for index in range(100)]
    items[50] = step("each", 50, 51, 50, status=StepState.FAILED)
    steps = [step("each", 0, 107, item_count=100), *items]
    chart = lay_out(a_run(107), steps, [], {"each": []}, at(107), 5)
    whole, *shown, rest = chart.rows
    assert [span.kind for span in whole.spans] == ["items"]
    assert [row.item_index for row in shown] == [6, 13, 20, 27, 50]
    assert rest.folded == 95


def test_the_critical_path_goes_back_along_what_ended_last() -> None:
    def one(start: float, end: float) -> list[Span]:
        return [Span("attempt", start, end)]

    spans = {
        "a": one(0, 5), "b": one(0, 9), "c": one(9, 10), "d": one(5, 6), "e": one(10, 12),
        "never": [],
    }  # fmt: skip
    needs = {"a": [], "b": [], "c": ["a", "b"], "d": ["a"], "never": ["d"]}
    assert critical_path(spans, needs) == {"b", "c", "e"}  # e is an action: it began after c
    assert critical_path({}, {}) == frozenset()


@given(st.floats(0.0005, 1e9), st.integers(-5, 60))
def test_ticks_are_round_rise_and_are_not_too_many(seconds: float, most: int) -> None:
    found = ticks(seconds, most)
    assert 1 <= len(found) <= max(most, 1)
    assert found[0] == 0
    assert found[-1] <= seconds * (1 + 1e-6)
    assert all(later > earlier for earlier, later in pairwise(found))
    texts = [tick_text(moment) for moment in found]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (0.05, "50 ms"),
        (1.5, "1.5 s"),
        (120, "2 min"),
        (5_400, "1 h 30 min"),
        (172_800, "2 d"),
    ],
)
def test_moments_are_written_for_people(seconds: float, text: str) -> None:
    assert tick_text(seconds) == text


MOMENTS = st.floats(-50, CHART * 1.5)
NAMES = st.text(max_size=50)
STEPS = st.lists(
    st.builds(
        lambda name, start, length, item, more: step(
            name, start, None if length is None else start + length, item, **more
        ),
        NAMES,
        MOMENTS,
        st.one_of(st.none(), st.floats(0, CHART)),
        st.integers(-1, 3),
        st.sampled_from(
            [{}, {"wait_kind": "timer"}, {"child_run_id": "run_2"}, {"reused_from": "run_3"}]
        ),
    ),
    unique_by=lambda row: row.key,
    max_size=12,
)


def with_own_rows(rows: list[StepRecord]) -> list[StepRecord]:
    """Each item has the row of its step, as in a journal."""
    own = {row.step_id for row in rows if row.item_index == NO_ITEM}
    missing = {row.step_id for row in rows} - own
    return rows + [step(name, 0, CHART, item_count=4) for name in sorted(missing)]


@settings(max_examples=30)
@given(STEPS, st.integers(40, 250), st.booleans())
def test_every_chart_can_be_drawn_within_its_bounds(
    rows: list[StepRecord], width: int, unicode: bool
) -> None:
    run = a_run()
    chart = lay_out(run, with_own_rows(rows), [], {}, at(CHART), 2)
    for row in chart.rows:
        assert all(0 <= span.start <= span.end <= chart.seconds for span in row.spans)
    lines = timeline_lines(chart, terminal(unicode=unicode), width)
    assert len(lines) >= len(chart.rows) + 3
    body = lines[: len(chart.rows) + 2]
    assert all(cell_width(line) <= width for line in body), body
    assert all("\x1b" not in line and "\n" not in line for line in lines)
    drawing = ElementTree.fromstring(timeline_svg(chart, run, width * 8))
    for rectangle in drawing.iter("{http://www.w3.org/2000/svg}rect"):
        x, length = float(rectangle.get("x", 0)), float(rectangle.get("width", 0))
        assert x >= 0
        assert x + length <= max(width * 8, 480) + 0.2


def test_the_svg_escapes_what_others_wrote_and_needs_nothing_else() -> None:
    row = Row("<script>&\x00", NO_ITEM, "failed", (Span("failed", 0, 1, "</title><script>"),))
    text = timeline_svg(Timeline(at(0), 1, (row,)), a_run(1), 800)
    drawing = ElementTree.fromstring(text)
    assert not list(drawing.iter("{http://www.w3.org/2000/svg}script"))
    assert text.count("http") == 1  # the namespace
    assert "\x00" not in text
    assert drawing.get("role") == "img"
    assert "prefers-color-scheme: dark" in text
