"""What steps wait for, in words, and the commands that end the waiting."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from swarm.cli.render.values import local_time
from swarm.engine.events import RunEvent
from swarm.kernel.json import JsonObject
from swarm.store.records import NO_ITEM, StepRecord

APPROVAL = "approval"
EVENT = "event"
TIMER = "timer"


@dataclass(frozen=True, slots=True)
class Wait:
    """One step, or one item of it, that waits."""

    run_id: str
    step_id: str
    item_index: int
    kind: str
    """``approval``, ``event``, ``timer``, or ``retry`` before the next attempt."""
    details: JsonObject
    wake_at: str | None
    """When it ends by itself."""

    @classmethod
    def of_event(cls, event: RunEvent) -> Wait:
        """What ``step.waiting`` tells."""
        data = event.data
        index = data.get("index")
        return cls(
            event.run_id,
            event.step_id or "",
            NO_ITEM if index is None else int(index),
            str(data.get("for")),
            data.get("details") or {},
            data.get("wake_at"),
        )

    @classmethod
    def of_step(cls, step: StepRecord) -> Wait:
        """What the row of a waiting step says."""
        return cls(
            step.run_id,
            step.step_id,
            step.item_index,
            step.wait_kind or "",
            step.wait_details or {},
            step.wake_at,
        )

    def __str__(self) -> str:
        """What it waits for, to be put after "waits for"."""
        until = f" until {local_time(self.wake_at)}" if self.wake_at else ""
        match self.kind:
            case "approval":
                return f"an approval{until}: {self.details.get('message', '')}"
            case "event":
                key = self.details.get("key")
                keyed = "" if key is None else f" with the key {key}"
                return f"the event {self.details.get('name')}{keyed}{until}"
            case "retry":
                return f"its next attempt{until.replace('until', 'at')}"
        return f"the time: {local_time(self.wake_at)}"

    def commands(self) -> list[str]:
        """The commands that answer it, ready to be copied; none where there is nothing to do."""
        if self.kind == APPROVAL:
            place = f"{self.run_id} {self.step_id}"
            if self.item_index != NO_ITEM:
                place += f" --item {self.item_index}"
            values = "".join(f" --value {value}" for value in self._wanted_values())
            return [f"swarm runs approve {place}{values}", f"swarm runs reject {place}"]
        if self.kind == EVENT:
            key = self.details.get("key")
            keyed = "" if key is None else f" --key {shlex.quote(str(key))}"
            return [f"swarm events send {shlex.quote(str(self.details.get('name')))}{keyed}"]
        return []

    def _wanted_values(self) -> list[str]:
        """``name=TYPE`` for what an approval must fill in."""
        return [
            f"{field['name']}={str(field.get('type', 'string')).upper()}"
            for field in self.details.get("form") or ()
            if field.get("required", True) and "default" not in field
        ]


def form_text(form: list[JsonObject]) -> str:
    """The fields of an approval's form on one line: ``region (string: eu or us), note (...)``."""
    parts = []
    for field in form:
        words = str(field.get("type", "string"))
        if field.get("enum"):
            words += ": " + " or ".join(str(value) for value in field["enum"])
        if "default" in field:
            words += f", else {field['default']}"
        elif not field.get("required", True):
            words += ", optional"
        parts.append(f"{field['name']} ({words})")
    return ", ".join(parts)
