"""When the parts of a run took place, laid out as the rows of a Gantt chart. Pure.

The critical path is found from the times as they were: it ends with the step that ended last, and
goes back from each step to the one, of those that it depended on, that ended last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from swarm.kernel.clock import from_text
from swarm.store.records import (
    NO_ITEM,
    InvocationRecord,
    RunRecord,
    StepKey,
    StepRecord,
    StepState,
)

SpanKind = Literal["attempt", "failed", "running", "pause", "wait", "call", "items", "reused"]
"""
======== ====================================================
attempt  an attempt that succeeded
failed   one that did not
running  one that is under way
pause    the time between two attempts
wait     for a time, an approval or an event
call     another workflow ran
items    from the first to the last item of the step
reused   a result that was taken over; takes no time
======== ====================================================
"""
SHOWN_ITEMS: Final = 12
"""Items of one step that have rows of their own; the others are folded."""
_NICE_SECONDS: Final = (
    *(base * 10**power for power in range(-3, 1) for base in (1, 2, 5)),
    *(10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400),
)
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a row, in seconds from the start of the chart."""

    kind: SpanKind
    start: float
    end: float
    about: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A step or an item and what it did."""

    step_id: str
    item_index: int
    state: str
    spans: tuple[Span, ...]
    is_critical: bool = False
    folded: int = 0
    """How many items this row stands for, if it stands for those that have none."""

    @property
    def start(self) -> float | None:
        return min((span.start for span in self.spans), default=None)

    @property
    def end(self) -> float | None:
        return max((span.end for span in self.spans), default=None)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The whole chart."""

    begins: str
    """UTC text of the moment that is second 0."""
    seconds: float
    """Length of the chart; at least a millisecond."""
    rows: tuple[Row, ...]


def lay_out(
    run: RunRecord,
    steps: Sequence[StepRecord],
    invocations: Iterable[InvocationRecord],
    needs: Mapping[str, Collection[str]],
    moment: str,
    shown_items: int = SHOWN_ITEMS,
) -> Timeline:
    """Lay out a run.

    Args:
        run: the run.
        steps: its step executions, those of items too.
        invocations: its attempts that have ended.
        needs: ``{step: steps it depends on}``.
        moment: UTC text of now, where what is under way ends.
        shown_items: items of a step that have rows of their own.
    """
    begins = run.started_at or run.created_at
    clock = _Clock(begins, run.completed_at or moment)
    attempts: dict[StepKey, list[InvocationRecord]] = {}
    for one in invocations:
        attempts.setdefault((one.step_id or "", one.item_index), []).append(one)
    own = [step for step in steps if step.item_index == NO_ITEM]
    items: dict[str, list[StepRecord]] = {}
    for step in steps:
        if step.item_index != NO_ITEM:
            items.setdefault(step.step_id, []).append(step)
    spans = {step.key: _spans(step, attempts.get(step.key, []), clock) for step in steps}
    critical = critical_path({step.step_id: spans[step.key] for step in own}, needs)
    order = {step.step_id: index for index, step in enumerate(own)}

    def place(step: StepRecord) -> tuple[float, int]:
        start = min((span.start for span in spans[step.key]), default=float("inf"))
        return start, order[step.step_id]

    rows: list[Row] = []
    for step in sorted(own, key=place):
        is_critical = step.step_id in critical
        rows.append(Row(step.step_id, NO_ITEM, str(step.status), spans[step.key], is_critical))
        rows += _item_rows(items.get(step.step_id, []), spans, shown_items)
    length = max((span.end for row in rows for span in row.spans), default=0.0)
    return Timeline(begins, max(length, clock.length, 0.001), tuple(rows))


def _item_rows(
    items: Sequence[StepRecord], spans: Mapping[StepKey, tuple[Span, ...]], shown: int
) -> list[Row]:
    """Rows of the items that failed or took longest, in the items' order, and one for the rest."""

    def weight(item: StepRecord) -> tuple[bool, float]:
        length = sum(span.end - span.start for span in spans[item.key])
        return item.status is not StepState.FAILED, -length

    chosen = sorted(items, key=weight)[:shown]
    rows = [
        Row(item.step_id, item.item_index, str(item.status), spans[item.key])
        for item in sorted(chosen, key=lambda item: item.item_index)
    ]
    if len(items) > len(chosen):
        kept = {item.item_index for item in chosen}
        rest = [span for item in items if item.item_index not in kept for span in spans[item.key]]
        whole: tuple[Span, ...] = ()
        if rest:
            start, end = min(span.start for span in rest), max(span.end for span in rest)
            whole = (Span("items", start, end),)
        count = len(items) - len(chosen)
        rows.append(Row(items[0].step_id, NO_ITEM, "", whole, folded=count))
    return rows


class _Clock:
    """Seconds from the start of the chart; what lies outside of it is put to its ends."""

    def __init__(self, begins: str, ends: str) -> None:
        self._begins = from_text(begins)
        self.length = max((from_text(ends) - self._begins).total_seconds(), 0.0)

    def at(self, text: str | None) -> float:
        if text is None:
            return self.length
        seconds = (from_text(text) - self._begins).total_seconds()
        return min(max(seconds, 0.0), self.length)


def _spans(
    step: StepRecord, attempts: Sequence[InvocationRecord], clock: _Clock
) -> tuple[Span, ...]:
    if step.reused_from is not None:
        return (Span("reused", 0.0, 0.0, f"from {step.reused_from}"),)
    if step.started_at is None or step.status is StepState.SKIPPED:
        return ()
    start, end = clock.at(step.started_at), clock.at(step.completed_at)
    end = max(start, end)
    if step.item_count is not None:
        return (Span("items", start, end, f"{step.item_count:,} items"),)
    if step.child_run_id is not None:
        return (Span("call", start, end, step.child_run_id),)
    if step.wait_kind is not None and step.wait_kind != "retry":
        return (Span("wait", start, end, step.wait_kind),)
    return _attempt_spans(step, attempts, clock) or (
        Span("attempt" if step.status is StepState.SUCCEEDED else "failed", start, end),
    )


def _attempt_spans(
    step: StepRecord, attempts: Sequence[InvocationRecord], clock: _Clock
) -> tuple[Span, ...]:
    spans: list[Span] = []
    for one in sorted(attempts, key=lambda one: one.attempt):
        start = clock.at(one.started_at)
        kind: SpanKind = "attempt" if one.status == "ok" else "failed"
        _append(spans, Span(kind, start, max(start, clock.at(one.completed_at)), one.error or ""))
    if step.status is StepState.RUNNING and step.attempt_started_at is not None:
        _append(spans, Span("running", clock.at(step.attempt_started_at), clock.length))
    return tuple(spans)


def _append(spans: list[Span], span: Span) -> None:
    if spans and span.start > spans[-1].end:
        spans.append(Span("pause", spans[-1].end, span.start))
    spans.append(span)


def critical_path(
    spans: Mapping[str, Sequence[Span]], needs: Mapping[str, Collection[str]]
) -> frozenset[str]:
    """The steps of the critical path.

    A step that nothing is known of the dependencies of, as those of a run's actions, is taken to
    depend on what had ended when it began.
    """
    ends = {step: max(span.end for span in found) for step, found in spans.items() if found}
    starts = {step: min(span.start for span in found) for step, found in spans.items() if found}
    path: set[str] = set()
    step = max(ends, key=ends.__getitem__, default=None)
    while step is not None:
        path.add(step)
        if step in needs:
            before = [each for each in needs[step] if each in ends]
        else:
            before = [each for each in ends if ends[each] <= starts[step]]
        before = [each for each in before if each not in path]
        step = max(before, key=ends.__getitem__, default=None)
    return frozenset(path)


def ticks(seconds: float, most: int) -> Sequence[float]:
    """Round moments from 0 on, at most ``most`` (and at least 1) of them up to ``seconds``."""
    most = max(most, 1)
    step = next((nice for nice in _NICE_SECONDS if seconds / nice < most), None)
    if step is None:
        step = _DAY
        while seconds / step >= most:
            step *= 2
    return [index * step for index in range(int(seconds / step + 1e-9) + 1)][:most]


def tick_text(seconds: float) -> str:
    """``0``, ``50 ms``, ``1.5 s``, ``2 min``, ``1 h 30 min`` or ``3 d``."""
    if seconds == 0:
        return "0"
    if seconds < 1:
        return f"{seconds * 1000:.4g} ms"
    if seconds < 60:
        return f"{seconds:.4g} s"
    parts = []
    rest = round(seconds)
    for unit, length in (("d", _DAY), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
