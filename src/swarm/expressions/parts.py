"""The parts of a step that may hold expressions: where each stands and what it may see and give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from swarm.definitions.source import Location
from swarm.definitions.workflow import StepDefinition, WaitDefinition
from swarm.expressions.template import Template, compile_condition, compile_template
from swarm.kernel.json import JsonValue

SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})
TIMES: Final = frozenset({"string", "integer", "number"})
"""Types of what can say a length of time."""
_TEXT: Final = frozenset({"string"})
_ARRAY: Final = frozenset({"array"})


@dataclass(frozen=True, slots=True)
class Part:
    """A value of a step that may hold expressions."""

    location: Location
    """Where it stands, within the step."""
    value: JsonValue
    is_condition: bool = False
    per_item: bool = False
    """Whether it is evaluated for each item of `for_each`, and so sees `item` and `index`."""
    accepts: frozenset[str] | None = None
    """The types that it may give; None for any."""

    @property
    def is_array(self) -> bool:
        """Whether it must give an array."""
        return self.accepts == _ARRAY

    def compile(self, where: str) -> Template:
        """Compile it; ``where`` is how errors call the place.

        Raises:
            ExpressionError: an expression is malformed.
        """
        if self.is_condition and isinstance(self.value, (str, bool)):
            return compile_condition(self.value, where=where)
        return compile_template(self.value, where=where)


def step_parts(step: StepDefinition) -> Iterator[Part]:
    """Every part of a step that may hold expressions; those evaluated once come first."""
    if step.when is not None:
        yield Part(("when",), step.when, is_condition=True, accepts=frozenset({"boolean"}))
    if step.for_each is not None:
        items = step.for_each if isinstance(step.for_each, str) else list(step.for_each)
        yield Part(("for_each",), items, accepts=_ARRAY)
    for name, value in step.inputs.items():
        yield Part(("inputs", name), value, per_item=True)
    if step.wait is not None:
        yield from _wait_parts(step.wait)


def _wait_parts(wait: WaitDefinition) -> Iterator[Part]:
    if wait.duration is not None:
        yield Part(("wait", "duration"), wait.duration, per_item=True, accepts=TIMES)
    if wait.until is not None:
        yield Part(("wait", "until"), wait.until, per_item=True, accepts=_TEXT)
    if wait.approval is not None:
        yield Part(("wait", "approval", "message"), wait.approval.message, per_item=True)
    if wait.event is not None and wait.event.key is not None:
        yield Part(("wait", "event", "key"), wait.event.key, per_item=True, accepts=SCALARS)
    for kind, asked in (("approval", wait.approval), ("event", wait.event)):
        if asked is not None and asked.deadline is not None:
            location = ("wait", kind, "deadline")
            yield Part(location, asked.deadline, per_item=True, accepts=TIMES)
