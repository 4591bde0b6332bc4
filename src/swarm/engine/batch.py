"""What one commit of a run's driver holds, and what follows once it is durable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from swarm.engine.events import EventKind
from swarm.engine.hub import PublishEvent
from swarm.engine.steps import StepExecution
from swarm.kernel.json import JsonObject
from swarm.store.records import (
    CachedResult,
    InvocationRecord,
    NewRun,
    RunChanges,
    StepRecord,
    Usage,
)


@dataclass(slots=True)
class Batch:
    """Gathered while the driver looks at what has happened; applied all at once."""

    steps: list[StepRecord] = field(default_factory=list)
    invocations: list[InvocationRecord] = field(default_factory=list)
    cached: list[CachedResult] = field(default_factory=list)
    children: list[NewRun] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)
    vm_time_ms: int = 0
    tokens: int = 0
    cost_micros: int = 0
    starting: list[StepExecution] = field(default_factory=list)
    calling: list[str] = field(default_factory=list)
    """Ids of called runs to start."""
    events: list[tuple[EventKind, str | None, JsonObject]] = field(default_factory=list)

    def add_usage(self, usage: Usage) -> None:
        self.vm_time_ms += usage.vm_time_ms
        self.tokens += usage.tokens
        self.cost_micros += usage.cost_micros

    @property
    def usage(self) -> Usage:
        return Usage(self.vm_time_ms, self.tokens, self.cost_micros)

    @property
    def is_empty(self) -> bool:
        return not (self.steps or self.invocations or self.run or self.children)

    def changes(self) -> RunChanges:
        return RunChanges(
            steps=tuple(self.steps),
            invocations=tuple(self.invocations),
            run=self.run,
            cached=tuple(self.cached),
            children=tuple(self.children),
        )

    def tell(self, run_id: str, publish: PublishEvent) -> None:
        """Tell the run's followers what the batch did."""
        for kind, step_id, data in self.events:
            publish(run_id, kind, step_id, data)
