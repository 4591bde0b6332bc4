"""What happens in a run, as followers see it (live view, ``--json``, the API's stream)."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from swarm.kernel.clock import now_text
from swarm.kernel.json import JsonObject

EventKind = Literal[
    "run.started",
    "run.waiting",
    "run.finished",
    "step.started",
    "step.retrying",
    "step.waiting",
    "step.finished",
    "item.started",
    "item.retrying",
    "item.finished",
    "step.progress",
    "step.stream",
    "log",
    "notify",
]
"""
============== ======================================================================
kind           ``data``
============== ======================================================================
run.started    ``{resumed: bool}``
run.waiting    ``{wake_at}``: it goes on when something that its steps wait for happens
run.finished   ``{status, outputs, error, error_code, error_step}``; the last event of a run
step.started   ``{attempt, agent}``, ``{attempt, items}`` or ``{workflow, run_id}``
step.retrying  ``{attempt, error, error_code, delay_seconds}``
step.waiting   ``{for: timer | approval | event, details, wake_at, index}``
step.finished  ``{status, error, error_code, duration_ms}``; status may be ``skipped``
item.*         as ``step.*``, of one item of ``for_each``, with its ``index``
step.progress  ``{fraction: 0..1 or null, message}``
step.stream    ``{value}``: what a generator handler yielded
log            ``{stream, level, message}``
notify         ``{level, message}``
============== ======================================================================
"""


class RunEvent(Struct, frozen=True):
    """One thing that happened; ``sequence`` counts from 1 within one run and one owner."""

    run_id: str
    kind: EventKind
    step_id: str | None = None
    data: JsonObject = field(default_factory=dict)
    time: str = field(default_factory=now_text)
    sequence: int = 0

    def as_json(self) -> JsonObject:
        """The event as ``--events`` and the API's stream write it."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RunEvent:
        """Read what :meth:`as_json` gave."""
        return cls(**document)
