"""What a follower knows of a run, built from its events. Pure: no clock, no output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from swarm.cli.render.values import plural
from swarm.cli.render.waits import Wait
from swarm.engine.events import RunEvent
from swarm.kernel.json import JsonObject
from swarm.store.records import NO_ITEM

FINAL = frozenset({"succeeded", "failed", "cancelled", "skipped"})
ITEM_STATES = ("failed", "cancelled", "waiting", "running")
"""States of items that are told of, besides how many have ended."""


@dataclass
class StepView:
    """One step as the view shows it."""

    id: str
    state: str = "pending"
    attempt: int = 0
    started_at: str = ""
    duration_ms: float | None = None
    fraction: float | None = None
    message: str = ""
    """The latest progress message or log line."""
    error: str = ""
    items: int | None = None
    """How many items ``for_each`` gave."""
    item_states: dict[int, str] = field(default_factory=dict)
    """Of the items that have begun."""
    item_counts: Counter[str] = field(default_factory=Counter)
    """How many items are in each state."""

    @property
    def items_ended(self) -> int:
        return sum(self.item_counts[state] for state in FINAL)

    def note_item(self, index: int, state: str) -> None:
        """An item has come into this state."""
        if (before := self.item_states.get(index)) is not None:
            self.item_counts[before] -= 1
        self.item_states[index] = state
        self.item_counts[state] += 1

    def items_text(self) -> str:
        """``7 of 10 items, 1 failed, 2 running``."""
        counts = self.item_counts
        parts = [f"{self.items_ended:,} of {plural(self.items or 0, 'item')}"]
        parts += [f"{counts[state]:,} {state}" for state in ITEM_STATES if counts[state]]
        return ", ".join(parts)


@dataclass
class RunView:
    """A run and its steps; :meth:`apply` takes each event in turn."""

    run_id: str
    title: str
    steps: dict[str, StepView]
    status: str = "pending"
    outcome: JsonObject = field(default_factory=dict)
    """The data of ``run.finished``."""

    @classmethod
    def of(cls, run_id: str, title: str, step_ids: Iterable[str]) -> RunView:
        return cls(run_id, title, {name: StepView(name) for name in step_ids})

    @property
    def is_finished(self) -> bool:
        return bool(self.outcome)

    def count(self, *states: str) -> int:
        """How many steps are in one of these states."""
        return sum(step.state in states for step in self.steps.values())

    def apply(self, event: RunEvent) -> None:
        """Take in one event. Steps that are not known are added, and late events of a step that
        has ended do not bring it back."""
        if event.kind == "run.started":
            self.status = "running"
        elif event.kind == "run.waiting":
            self.status = "waiting"
        elif event.kind == "run.finished":
            self.status = str(event.data.get("status", ""))
            self.outcome = dict(event.data)
        elif event.step_id is not None:
            step = self.steps.setdefault(event.step_id, StepView(event.step_id))
            _apply_to_step(step, event)
            if self.status in ("pending", "waiting") and event.kind != "step.waiting":
                self.status = "running"


def _apply_to_step(step: StepView, event: RunEvent) -> None:
    data = event.data
    match event.kind:
        case "step.started":
            step.state, step.started_at = "running", event.time
            step.attempt = int(data.get("attempt") or 1)
            step.fraction, step.message, step.error = None, "", ""
            if data.get("items") is not None:
                step.items = int(data["items"])
                _tell_items(step)
            elif data.get("workflow"):
                step.message = f"{data['workflow']}: {data.get('run_id')}"
        case "step.retrying":
            step.state = "waiting"
            step.error = str(data.get("error") or "")
            step.message = f"tried again in {float(data.get('delay_seconds') or 0):.3g} s"
        case "step.waiting" if int(data.get("index", NO_ITEM)) == NO_ITEM:
            step.state, step.started_at = "waiting", step.started_at or event.time
            step.message = f"waits for {Wait.of_event(event)}"
        case "item.started" | "item.retrying" | "item.finished" | "step.waiting":
            _apply_to_item(step, event)
        case "step.finished":
            step.state = str(data.get("status"))
            step.duration_ms = data.get("duration_ms")
            step.error = str(data.get("error") or "")
            step.fraction = None
        case "step.progress" if step.state not in FINAL and step.items is None:
            step.fraction = data.get("fraction")
            step.message = str(data.get("message") or step.message)
        case "log" if step.state not in FINAL and step.items is None:
            step.message = str(data.get("message") or "")


def _apply_to_item(step: StepView, event: RunEvent) -> None:
    data = event.data
    index = int(data.get("index", NO_ITEM))
    if step.state not in FINAL:
        step.state = "running"
        step.started_at = step.started_at or event.time
    if data.get("items") is not None:
        step.items = int(data["items"])
    states = {"item.started": "running", "item.finished": str(data.get("status"))}
    step.note_item(index, states.get(event.kind, "waiting"))
    _tell_items(step)


def _tell_items(step: StepView) -> None:
    step.message = step.items_text()
    step.fraction = step.items_ended / step.items if step.items else None


def visible(view: RunView, rows: int) -> tuple[list[StepView], int]:
    """The steps to show in so many rows, in their order, and how many are left out.

    When there is not room for all, what runs or failed goes before what waits, and what waits
    before what is done.
    """
    steps = list(view.steps.values())
    if len(steps) <= rows:
        return steps, 0
    rank = {"running": 0, "failed": 0, "waiting": 0, "cancelled": 1, "pending": 2}
    chosen = sorted(range(len(steps)), key=lambda index: (rank.get(steps[index].state, 3), index))[
        : max(rows - 1, 1)
    ]
    return [steps[index] for index in sorted(chosen)], len(steps) - len(chosen)
