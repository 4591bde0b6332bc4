"""What a run must give, computed from the drawn workflow alone: no line of the engine is used."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from tests.recovery.kills.workflows import ACTIONS, NEVER_ANSWERED, Flow, Step


@dataclass
class Expected:
    """The end of a run that nothing disturbed.

    Where a step's failure ends the run, what runs beside it may have ended or not been reached:
    that is left open.
    """

    status: str = "succeeded"
    failed_by: set[str] = field(default_factory=set)
    """The steps of which one is told as the cause."""
    states: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    """Of the steps that succeed; a file stands as the SHA-256 of its content."""
    values: dict[str, Any] = field(default_factory=dict)
    """What other steps read of those."""
    may_stop: set[str] = field(default_factory=set)
    """Steps that the run's failure may keep from starting."""


def action_states(flow: Flow, status: str) -> dict[str, str]:
    """How the steps of the actions have ended in a run that has ended with ``status``."""
    if not flow.has_actions:
        return {}
    return {name: "succeeded" if end == status else "skipped" for end, name in ACTIONS.items()}


def value_of(salt: int, number: int, values: list[Any], errors: list[str], text: str) -> int:
    """What the agent gives (see ``agents``): it depends on every input and on their order."""
    told = json.dumps([salt, number, values, errors, text], separators=(",", ":"))
    return zlib.crc32(told.encode())


def file_of(value: int) -> bytes:
    """The file that the agent gives."""
    return f"{value}\n".encode() * 50


def expect(flow: Flow, number: int) -> Expected:
    """The end of a run of ``flow`` with this input, which is not negative."""
    found = Expected()
    for step in flow.steps:
        found.states[step.id] = _state(step, found)
        if found.states[step.id] == "succeeded":
            found.outputs[step.id] = outputs = _outputs(step, flow, number, found)
            found.values[step.id] = _value(step, outputs)
        elif found.states[step.id] == "failed" and not step.survives:
            found.failed_by.add(step.id)
        if step.is_handled:
            _handle(step, number, found)
    if NEVER_ANSWERED in found.states.values():
        found.status = "cancelled"
    if found.failed_by:
        found.status = "failed"
        certain = _ancestors(flow, found.failed_by)
        certain |= {step.handler for step in flow.steps if step.id in certain}
        found.may_stop = set(found.states) - certain
    return found


def _state(step: Step, found: Expected) -> str:
    needed = {*step.reads, *step.needs, *step.reads_error_of}
    states = {found.states[other] for other in needed}
    if needed & found.failed_by or states & {"stopped", NEVER_ANSWERED}:
        return "stopped"
    if step.when is False or (step.when is None and "skipped" in states):
        return "skipped"
    if step.answer == NEVER_ANSWERED:
        return NEVER_ANSWERED
    return "failed" if step.is_broken else "succeeded"


def _handle(step: Step, number: int, found: Expected) -> None:
    """The handler runs when its step has failed."""
    ended = found.states[step.id]
    found.states[step.handler] = {"failed": "succeeded"}.get(ended, ended)
    if ended == "failed":
        found.outputs[step.handler] = {"value": value_of(step.salt, number, [], [step.code], "")}


def _value(step: Step, outputs: Any) -> Any:
    if step.items is not None:
        return [each[step.given] for each in outputs]
    if step.calls is not None:
        return outputs[step.given]
    if step.answer is not None:
        return outputs["values"]["amount"]
    if step.hears:
        return outputs["payload"]["value"]
    return outputs.get("value")


def _outputs(step: Step, flow: Flow, number: int, found: Expected) -> Any:
    if step.waits_seconds is not None:
        return {}
    if step.answer is not None:
        return {"approved": True, "values": {"amount": step.salt}}
    if step.hears:
        return {"payload": {"value": number}}
    if step.calls is not None:
        if step.items is not None:
            return [_called(step.calls, number + item) for item in step.items]
        return _called(step.calls, number + step.salt)
    values = [found.values[other] for other in step.reads]
    gives_file = {other.id for other in flow.steps if other.gives_file}
    source = next((other for other in step.reads if other in gives_file), None)
    text = file_of(found.values[source]).decode() if source else ""
    codes = {other.id: other.code for other in flow.steps}
    errors = [codes[other] for other in step.reads_error_of]
    if step.items is not None:
        return [{"value": value_of(item, number, values, errors, text)} for item in step.items]
    value = value_of(step.salt, number, values, errors, text)
    outputs: dict[str, Any] = {"value": value}
    if step.gives_file:
        outputs["document"] = "sha256:" + hashlib.sha256(file_of(value)).hexdigest()
    return outputs


def _called(flow: Flow, number: int) -> dict[str, Any]:
    values = expect(flow, number).values
    return {each: values[each] for each in flow.given}


def _ancestors(flow: Flow, steps: set[str]) -> set[str]:
    """What must have ended before any of these could: they say which was first to fail."""
    # With one cause its ancestors are certain; of several, whichever comes first stops the rest.
    if len(steps) > 1:
        return set()
    found = set(steps)
    for step in reversed(flow.steps):
        if step.id in found:
            found |= {*step.reads, *step.needs, *step.reads_error_of}
    return found
