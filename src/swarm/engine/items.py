"""The items of one ``for_each``: which may start, and what becomes of the step. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from swarm.kernel.json import JsonObject, JsonValue
from swarm.store.records import StepRecord, StepState


@dataclass(slots=True)
class ItemSet:
    """How far the items of one step have come."""

    values: Sequence[JsonValue]
    max_parallel: int
    stops_at_failure: bool
    """Whether no further item starts once one has failed."""
    outputs: list[JsonObject | None] = field(init=False)
    """In the order of the items, as they stand in the journal; None for those without."""
    errors: list[JsonObject] = field(default_factory=list)
    """``{index, message, code}`` of failed items, in the order in which they failed."""
    ended: int = 0
    output_bytes: int = 0
    _next: int = 0
    _running: set[int] = field(default_factory=set)
    _skipped: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.outputs = [None] * len(self.values)

    @property
    def is_over(self) -> bool:
        """Whether no item is running and none will start."""
        return not self._running and (self._stops or self.ended == len(self.values))

    @property
    def _stops(self) -> bool:
        return self.stops_at_failure and bool(self.errors)

    def restore(self, item: StepRecord) -> None:
        """Note an item that had ended before the run was taken up again."""
        self._skipped.add(item.item_index)
        self._note(item)

    def startable(self) -> Iterator[int]:
        """The items to start now; each counts as running from then on."""
        while not self._stops and self._next < len(self.values):
            if self._next in self._skipped:
                self._next += 1
                continue
            if len(self._running) >= self.max_parallel:
                return
            index = self._next
            self._next += 1
            self._running.add(index)
            yield index

    def end(self, item: StepRecord) -> None:
        """Note how an item that was started has ended."""
        self._running.discard(item.item_index)
        self._note(item)

    def _note(self, item: StepRecord) -> None:
        self.ended += 1
        self.outputs[item.item_index] = item.outputs
        if item.status is StepState.FAILED:
            self.errors.append(
                {"index": item.item_index, "message": item.error, "code": item.error_code}
            )

    def failure(self) -> tuple[str, str] | None:
        """Message and code of the step as a whole, if an item has failed."""
        if not self.errors:
            return None
        first = min(self.errors, key=lambda error: int(error["index"]))
        failed = f"item {first['index']} failed"
        if (count := len(self.errors)) > 1:
            failed = f"{count} of {len(self.values)} items failed, the first: {failed}"
        return f"{failed}: {first['message']}", str(first["code"] or "failed")
