"""What comes from outside for steps that wait: answers of people, and events."""

from __future__ import annotations

from swarm.engine.waits import checked_answer
from swarm.kernel.clock import now_text
from swarm.kernel.errors import ConflictError, InputError, InvalidError, NotFoundError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject, JsonValue, dump_bytes
from swarm.kernel.settings import Settings
from swarm.store.ports import Store
from swarm.store.records import (
    DEFAULT_PROJECT,
    NO_ITEM,
    AnswerRecord,
    EventRecord,
    RunRecord,
    StepRecord,
    StepState,
)

MAX_NAME_CHARACTERS = 200
MAX_KEY_CHARACTERS = 512
MAX_TEXT_CHARACTERS = 4_096
"""Of a comment, or of who gave the answer."""


class Inbox:
    """Records answers and events; waking the runs is up to the caller."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    async def waiting_step(
        self, run: RunRecord, step_id: str | None, item_index: int = NO_ITEM
    ) -> StepRecord:
        """The step of a run that waits for an approval.

        Raises:
            NotFoundError: none does; InvalidError: several do, and none is named.
        """
        steps = await self._store.list_steps(run.id)
        waiting = [
            step
            for step in steps
            if step.status is StepState.WAITING and step.wait_kind == "approval"
        ]
        if step_id is not None:
            named = [step for step in waiting if step.key == (step_id, item_index)]
            if not named:
                raise NotFoundError(
                    f"the step {step_id} of run {run.id} does not wait for an approval",
                    name=step_id,
                    known=[step.step_id for step in waiting],
                    remedy=f"`swarm runs show {run.id}` shows its steps",
                )
            return named[0]
        if not waiting:
            raise NotFoundError(
                f"run {run.id} does not wait for an approval",
                remedy=f"`swarm runs show {run.id}` shows its steps",
            )
        if len(waiting) > 1:
            raise InvalidError(
                f"several steps of run {run.id} wait for an approval",
                remedy="name one: " + ", ".join(step.step_id for step in waiting),
            )
        return waiting[0]

    async def answer(
        self, step: StepRecord, approved: bool, values: JsonObject, by: str, comment: str
    ) -> None:
        """Record the answer to a waiting step.

        Raises:
            InputError: the values do not fit the form, or are too large.
            ConflictError: it has just been answered, or does not wait any more.
        """
        if max(len(by), len(comment)) > MAX_TEXT_CHARACTERS:
            raise InputError(f"who and why may have {MAX_TEXT_CHARACTERS:,} characters each")
        self._check_size(values, "the values")
        checked = checked_answer(step, values) if approved else values
        data: JsonObject = {"approved": approved, "by": by, "comment": comment, "values": checked}
        answer = AnswerRecord(
            step.run_id, step.step_id, step.item_index, data, now_text(), step.project_id
        )
        if not await self._store.answer_wait(answer):
            raise ConflictError(
                f"the step {step.step_id} of run {step.run_id} has just been answered, or waits no "
                "more",
                remedy=f"`swarm runs show {step.run_id}` tells how it went on",
            )

    async def put(
        self,
        name: str,
        key: str | None,
        payload: JsonValue,
        event_id: str | None,
        project_id: str = DEFAULT_PROJECT,
    ) -> tuple[EventRecord, list[str]]:
        """Record an event; gives it with the ids of the runs that wait for it.

        Raises:
            InvalidError: the name, key or id is empty or too long; InputError: the payload is too
                large.
        """
        for what, text, limit in (
            ("name", name, MAX_NAME_CHARACTERS),
            ("key", key, MAX_KEY_CHARACTERS),
            ("id", event_id, MAX_KEY_CHARACTERS),
        ):
            if text is not None and not 0 < len(text) <= limit:
                raise InvalidError(f"the {what} of an event must have 1 to {limit} characters")
        self._check_size(payload, "the payload")
        event = EventRecord(event_id or new_id("event"), name, key, payload, now_text(), project_id)
        return event, await self._store.add_event(event)

    def _check_size(self, value: JsonValue, what: str) -> None:
        size, limit = len(dump_bytes(value)), self._settings.max_input_bytes
        if size > limit:
            raise InputError(
                f"too large: {what}, {size:,} bytes; the limit is {limit:,}",
                remedy="pass large data as a file, or raise SWARM_MAX_INPUT_BYTES",
            )
