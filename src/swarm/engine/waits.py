"""Steps that wait: what their rows say, and what ends them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from swarm.definitions.fields import FieldDefinition
from swarm.definitions.loading import definition_to_json
from swarm.definitions.times import parse_duration, parse_moment
from swarm.definitions.values import check_values
from swarm.engine.compiled import CompiledWait
from swarm.kernel.clock import now_text, to_text
from swarm.kernel.errors import InputError
from swarm.kernel.json import JsonObject, JsonValue, dumps
from swarm.store.records import AnswerRecord, EventRecord, StepRecord, StepState

RETRY: Final = "retry"
"""``wait_kind`` of a step that waits for its next attempt."""
DEADLINE: Final = "deadline"
REJECTED: Final = "rejected"


def waiting_step(
    step: StepRecord, wait: CompiledWait, scope: Mapping[str, JsonValue], moment: datetime
) -> StepRecord:
    """The row of a step that begins to wait at ``moment``.

    Raises:
        ExpressionError: a field of the wait cannot be evaluated.
        InputError: it gives no length of time, or no moment.
    """
    details = wait.details.evaluate(scope)
    wake_at = _wake_at(details, moment)
    name = key = None
    if wait.kind == "event":
        name = str(details["name"])
        key = None if details["key"] is None else _as_key(details["key"])
    if wait.definition.approval is not None:
        form = wait.definition.approval.form
        details["form"] = [definition_to_json(field) for field in form]
    return replace(
        step,
        status=StepState.WAITING,
        started_at=step.started_at or to_text(moment),
        wait_kind=wait.kind,
        wait_name=name,
        wait_key=key,
        wait_details=details,
        wake_at=to_text(wake_at) if wake_at is not None else None,
    )


def _wake_at(details: JsonObject, moment: datetime) -> datetime | None:
    """When the wait ends by itself."""
    length = details.get("duration")
    if length is None:
        length = details.get("deadline")
    try:
        if length is not None:
            return moment + timedelta(seconds=parse_duration(length))
        if details.get("until") is not None:
            return parse_moment(details["until"])
    except ValueError as error:
        raise InputError(str(error)) from None
    return None


def _as_key(value: JsonValue) -> str:
    if isinstance(value, (dict, list)):
        raise InputError("the key of an event must be text, a number or a boolean")
    return value if isinstance(value, str) else str(value)


def answered_step(step: StepRecord, answer: AnswerRecord) -> StepRecord:
    """The row of a step that a person has answered."""
    data = answer.data
    outputs = {
        "approved": bool(data["approved"]),
        "by": data.get("by"),
        "comment": data.get("comment"),
        "values": data.get("values", {}),
        "answered_at": answer.created_at,
    }
    if data["approved"]:
        return _ended(step, StepState.SUCCEEDED, outputs)
    comment = f": {data['comment']}" if data.get("comment") else ""
    return _ended(step, StepState.FAILED, outputs, f"it was rejected{comment}", REJECTED)


def checked_answer(step: StepRecord, values: JsonObject) -> JsonObject:
    """What a person filled in, with the form's defaults.

    Raises:
        InputError: it does not fit the form.
    """
    form = [
        FieldDefinition.model_validate_json(dumps(field))
        for field in (step.wait_details or {}).get("form", ())
    ]
    return check_values(form, values, subject=f"step {step.step_id}", kind="input")


def event_step(step: StepRecord, event: EventRecord) -> StepRecord:
    """The row of a step for which its event has come."""
    outputs = {
        "id": event.id,
        "name": event.name,
        "key": event.key,
        "payload": event.payload,
        "received_at": event.received_at,
    }
    return _ended(step, StepState.SUCCEEDED, outputs)


def due_step(step: StepRecord) -> StepRecord:
    """The row of a step whose ``wake_at`` has come."""
    if step.wait_kind == "timer":
        return _ended(step, StepState.SUCCEEDED, {"woken_at": now_text()})
    what = "an answer" if step.wait_kind == "approval" else "the event"
    return _ended(step, StepState.FAILED, None, f"{what} did not come in time", DEADLINE)


def _ended(
    step: StepRecord,
    state: StepState,
    outputs: JsonObject | None,
    error: str | None = None,
    code: str | None = None,
) -> StepRecord:
    return replace(
        step,
        status=state,
        outputs=outputs,
        completed_at=now_text(),
        error=error,
        error_code=code,
        wake_at=None,
    )
