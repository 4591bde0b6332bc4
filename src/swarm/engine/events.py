"""What happens in a run, as followers see it (live view, ``--json``, the API's stream)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from swarm.kernel.clock import now_text
from swarm.kernel.json import JsonObject

EventKind = Literal[
    "run.started",
    "run.finished",
    "step.started",
    "step.retrying",
    "step.finished",
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
run.finished   ``{status, outputs, error, error_code, error_step}``; the last event of a run
step.started   ``{attempt, agent}``
step.retrying  ``{attempt, error, error_code, delay_seconds}``
step.finished  ``{status, error, error_code, duration_ms}``; status may be ``skipped``
step.progress  ``{fraction: 0..1 or null, message}``
step.stream    ``{value}``: what a generator handler yielded
log            ``{stream, level, message}``
notify         ``{level, message}``
============== ======================================================================
"""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One thing that happened; ``sequence`` counts from 1 within one run and one owner."""

    run_id: str
    kind: EventKind
    step_id: str | None = None
    data: JsonObject = field(default_factory=dict)
    time: str = field(default_factory=now_text)
    sequence: int = 0

    def as_json(self) -> JsonObject:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RunEvent:
        return cls(**document)
