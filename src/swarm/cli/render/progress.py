"""What a follower knows of a run, built from its events. Pure: no clock, no output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from swarm.engine.events import RunEvent
from swarm.kernel.json import JsonObject

FINAL = frozenset({"succeeded", "failed", "cancelled", "skipped"})


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
        elif event.kind == "run.finished":
            self.status = str(event.data.get("status", ""))
            self.outcome = dict(event.data)
        elif event.step_id is not None:
            step = self.steps.setdefault(event.step_id, StepView(event.step_id))
            _apply_to_step(step, event)
            if self.status == "pending":
                self.status = "running"


def _apply_to_step(step: StepView, event: RunEvent) -> None:
    data = event.data
    match event.kind:
        case "step.started":
            step.state, step.started_at = "running", event.time
            step.attempt = int(data.get("attempt") or 1)
            step.fraction, step.message, step.error = None, "", ""
        case "step.retrying":
            step.state = "waiting"
            step.error = str(data.get("error") or "")
            step.message = f"tried again in {float(data.get('delay_seconds') or 0):.3g} s"
        case "step.finished":
            step.state = str(data.get("status"))
            step.duration_ms = data.get("duration_ms")
            step.error = str(data.get("error") or "")
            step.fraction = None
        case "step.progress" if step.state not in FINAL:
            step.fraction = data.get("fraction")
            step.message = str(data.get("message") or step.message)
        case "log" if step.state not in FINAL:
            step.message = str(data.get("message") or "")


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
