"""What must hold of a workflow's steps and actions beyond their structure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from swarm.definitions.fields import NAME_PATTERN, VERSION_PATTERN
from swarm.definitions.source import Location, Source
from swarm.definitions.times import parse_duration, parse_moment
from swarm.definitions.workflow import (
    ACTION_LISTS,
    ActionDefinition,
    PlacedStep,
    StepDefinition,
    WaitDefinition,
    WorkflowDefinition,
)
from swarm.kernel.errors import Problem

MAX_HANDLER_DEPTH: Final = 3
"""How deep the handlers of handlers may be nested."""

TARGETS: Final = ("agent", "workflow", "wait")
WAITS: Final = ("duration", "until", "approval", "event")

ONLY_WITH_AGENT: Final = ("isolation", "network", "cache")
NOT_WITH_WAIT: Final = ("inputs", "retry", "timeout_seconds")
_WITH_DEADLINE: Final = ("approval", "event")
_REFERENCE = re.compile(rf"{NAME_PATTERN[1:-1]}(@{VERSION_PATTERN[1:-1]})?")


def step_problems(placed: PlacedStep, source: Source) -> Iterator[Problem]:
    """The problems of one step, by itself."""
    step, at = placed.step, placed.location
    yield from _target_problems(step, at, source)
    for key in ("agent", "workflow"):
        reference = getattr(step, key)
        if reference is not None and _REFERENCE.fullmatch(reference) is None:
            yield source.problem(
                (*at, key),
                f"`{reference}` does not name {'an agent' if key == 'agent' else 'a workflow'}",
                "write name (the highest version) or name@1.0.0",
            )
    if step.wait is not None:
        yield from _wait_problems(step.wait, (*at, "wait"), source)
    if step.max_parallel is not None and step.for_each is None:
        yield source.problem(
            (*at, "max_parallel"),
            "`max_parallel` has no meaning without `for_each`",
            "remove it, or add `for_each: ${...}`",
        )
    if step.for_each == ():
        yield source.problem(
            (*at, "for_each"),
            f"`for_each` has no items, so the step `{step.id}` does nothing",
            "list the items, or remove the step",
        )
    if placed.actions is not None and placed.guard is None:
        yield from _action_step_problems(placed, source)
    else:
        yield from _depth_problems(placed, source)


def action_problems(workflow: WorkflowDefinition, source: Source) -> Iterator[Problem]:
    """Actions that are not exactly one thing."""
    for name in ACTION_LISTS:
        for index, action in enumerate(getattr(workflow, name)):
            yield from _action_problems(action, (name, index), source)


def _action_problems(action: ActionDefinition, at: Location, source: Source) -> Iterator[Problem]:
    given = [key for key in ("notify", "step") if getattr(action, key) is not None]
    if not given:
        yield source.problem(
            at,
            "the action does nothing: it has neither `notify` nor `step`",
            "add `notify: {type: log, message: ...}` or `step: {...}`",
        )
    elif len(given) > 1:
        yield source.problem(
            (*at, "step"),
            "the action has both `notify` and `step`",
            "make two actions of it, each after a dash of its own",
        )


def _target_problems(step: StepDefinition, at: Location, source: Source) -> Iterator[Problem]:
    given = [key for key in TARGETS if getattr(step, key) is not None]
    if not given:
        yield source.problem(
            at,
            f"the step `{step.id}` does nothing: it has none of `agent`, `workflow` and `wait`",
            "add `agent: name`",
        )
        return
    if len(given) > 1:
        shown = " and ".join(f"`{key}`" for key in given)
        yield source.problem(
            (*at, given[-1]),
            f"the step `{step.id}` has {shown}; a step does one of them",
            "make a step of its own of each",
        )
        return
    if given != ["agent"]:
        does = "waits" if given == ["wait"] else "runs a workflow"
        for key in ONLY_WITH_AGENT:
            if getattr(step, key) is not None:
                yield source.problem(
                    (*at, key),
                    f"`{key}` has no meaning for the step `{step.id}`, which {does}",
                    "remove it"
                    if does == "waits"
                    else "remove it, or give it to the steps of that workflow",
                )
    if given == ["wait"]:
        yield from _waiting_step_problems(step, at, source)


def _waiting_step_problems(step: StepDefinition, at: Location, source: Source) -> Iterator[Problem]:
    remedies = {
        "inputs": "remove it; what is asked and waited for stands in `wait`",
        "retry": "remove it",
        "timeout_seconds": "remove it",
    }
    kinds = [kind for kind in _WITH_DEADLINE if getattr(step.wait, kind) is not None]
    if kinds:
        remedies["timeout_seconds"] = f"give `wait.{kinds[0]}.deadline` instead"
    for key in NOT_WITH_WAIT:
        if getattr(step, key):
            yield source.problem(
                (*at, key),
                f"`{key}` has no meaning for the step `{step.id}`, which waits",
                remedies[key],
            )


def _wait_problems(wait: WaitDefinition, at: Location, source: Source) -> Iterator[Problem]:
    given = [kind for kind in WAITS if getattr(wait, kind) is not None]
    if len(given) != 1:
        shown = " and ".join(f"`{kind}`" for kind in given)
        yield source.problem(
            (*at, given[-1]) if given else at,
            f"it waits for {shown}; a step waits for one thing"
            if given
            else "it waits for nothing: it has none of `duration`, `until`, `approval` and `event`",
            "make a step of its own of each" if given else "add `duration: 90m`, for example",
        )
        return
    if wait.duration is not None:
        yield from _time_problems(wait.duration, (*at, "duration"), parse_duration, source)
    if wait.until is not None:
        yield from _time_problems(wait.until, (*at, "until"), parse_moment, source)
    for kind in _WITH_DEADLINE:
        if (inner := getattr(wait, kind)) is not None and inner.deadline is not None:
            location = (*at, kind, "deadline")
            yield from _time_problems(inner.deadline, location, _parse_deadline, source)
    if wait.event is not None and "${" in wait.event.name:
        yield source.problem(
            (*at, "event", "name"),
            "the event's name holds an expression, which only its key can",
            "write the name out, and use `key: ${...}`",
        )
    for index, field in enumerate(wait.approval.form if wait.approval is not None else ()):
        if field.type in ("file", "directory"):
            yield source.problem(
                (*at, "approval", "form", index, "type"),
                f"the form's field `{field.name}` cannot be a {field.type}",
                "ask for text, such as where it lies",
            )


def _time_problems(
    value: float | str, location: Location, parse: Callable[[object], object], source: Source
) -> Iterator[Problem]:
    """The problem of a constant that is no time; expressions are checked elsewhere."""
    if isinstance(value, str) and "${" in value:
        return
    try:
        parse(value)
    except ValueError as error:
        message, _, remedy = str(error).partition(": ")
        yield source.problem(location, message, remedy)


def _parse_deadline(value: object) -> float:
    seconds = parse_duration(value)
    if seconds == 0:
        raise ValueError(
            f"a deadline of {value!r} has passed at once: give seconds, or text such as 90m"
        )
    return seconds


def _action_step_problems(placed: PlacedStep, source: Source) -> Iterator[Problem]:
    """What only steps of the DAG may have."""
    if placed.step.needs:
        yield source.problem(
            (*placed.location, "needs"),
            f"`needs` has no meaning in `{placed.actions}`, whose actions run one after the other",
            "remove it, and put the actions in order",
        )
    if placed.step.handlers:
        yield source.problem(
            (*placed.location, "on_error"),
            f"a step of `{placed.actions}` cannot have steps that handle its errors",
            "let a workflow of its own do it: `workflow: name`",
        )


def _depth_problems(placed: PlacedStep, source: Source) -> Iterator[Problem]:
    """Handlers of handlers, nested too deeply."""
    nested = placed.location.count("on_error")
    if placed.step.handlers and placed.actions is None and nested >= MAX_HANDLER_DEPTH:
        yield source.problem(
            (*placed.location, "on_error"),
            f"steps that handle errors are nested more than {MAX_HANDLER_DEPTH} deep",
            "let a workflow of its own do it: `workflow: name`",
        )
