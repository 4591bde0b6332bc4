"""Random workflows, drawn feature by feature from a table.

Each step calls one agent that does as it is told (see ``agents``). A feature changes a step that
was drawn before it; what the run must then give is computed in ``expected``, independently of the
engine. A new feature of the language is a field of :class:`Step`, a line in :data:`FEATURES`, and
its rule in ``expected``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

MAX_STEPS = 9
MAX_QUICK_STEPS = 4
MAX_PAUSE_MS = 25
LONG_PAUSE_MS = 1_500
MAX_VALUE = 1_000
LONG_WAIT_SECONDS = 2.3
"""Longer than a host holds a run that only waits (``swarm.engine.driver.HOLD_SECONDS``)."""
ATTEMPTS = 60
"""More than sandboxes of one step are ever killed."""
SHORT, AMPLE = 0.5, 1e6
"""Budgets, as shares of what a run spends at least."""
EVENT = "told"
NEVER_ANSWERED = "unanswered"
ACTIONS = {"succeeded": "on_success", "failed": "on_error", "cancelled": "on_cancel"}
"""The action that is done when a run has ended so; the id of its step is the same."""
RETRIED = ("killed", "exited", "protocol", "sandbox_unavailable", "error")
"""What the kill of a sandbox, of a plain process or of a zygote is told as, and a flaky handler."""


@dataclass(frozen=True)
class Step:
    """One step as it was drawn."""

    id: str
    agent: Literal["inside", "outside"]
    salt: int
    reads: tuple[str, ...] = ()
    """Steps whose values it takes."""
    needs: tuple[str, ...] = ()
    """Steps it only waits for."""
    pause_ms: int = 0
    failures: int = 0
    """It fails in its first so many attempts, and is tried again."""
    is_broken: bool = False
    """It fails whenever it is tried, and is not tried again."""
    survives: bool = False
    """``on_error: continue``."""
    when: bool | None = None
    """Its condition, as the run's inputs will make it; None if it has none."""
    gives_file: bool = False
    reads_error_of: tuple[str, ...] = ()
    """Steps whose error code it takes: all that is left of a broken step."""
    items: tuple[int, ...] | None = None
    """``for_each``: each item takes the place of the salt; a called workflow is run for each."""
    calls: Flow | None = None
    """The workflow that it runs instead of an agent."""
    waits_seconds: float | None = None
    """It waits for that time instead of calling anything."""
    is_handled: bool = False
    """Another step runs when it has failed."""
    answer: Literal["approved", "rejected", "unanswered"] | None = None
    """It waits for a person, who will say this."""
    hears: bool = False
    """It waits for an event."""
    is_cached: bool = False
    spends: int = 0
    """Tokens, in each attempt."""

    @property
    def handler(self) -> str:
        return f"{self.id}_undo"

    @property
    def value(self) -> str:
        """The expression of what it gives."""
        if self.items is not None:
            return f"${{steps.{self.id}.outputs | map(attribute='{self.given}') | list}}"
        if self.answer is not None:
            return f"${{steps.{self.id}.outputs.values.amount}}"
        if self.hears:
            return f"${{steps.{self.id}.outputs.payload.value}}"
        return f"${{steps.{self.id}.outputs.{self.given}}}"

    @property
    def given(self) -> str:
        """The name of that, among the outputs of its agent or of what it calls."""
        return "value" if self.calls is None else self.calls.given[-1]

    @property
    def executes(self) -> bool:
        """Whether an agent is called for it as a whole."""
        return self.items is None and self.calls is None and not self.only_waits

    @property
    def gives_value(self) -> bool:
        return not self.is_broken and self.waits_seconds is None

    @property
    def only_waits(self) -> bool:
        return self.waits_seconds is not None or self.answer is not None or self.hears

    @property
    def code(self) -> str:
        """Of its failure."""
        return "rejected" if self.answer == "rejected" else "error"


@dataclass(frozen=True)
class Flow:
    """A workflow: its steps in an order in which each depends on earlier ones only."""

    name: str
    steps: tuple[Step, ...]
    given: tuple[str, ...]
    """Steps whose values are the run's outputs; none of them is ever skipped or broken."""
    budget: float | None = None
    """Of tokens, as a share of what a run spends at least."""
    limit: int | None = None
    """Of runs at once whose number is even, and of those whose number is odd."""
    has_actions: bool = False

    @property
    def is_endless(self) -> bool:
        """Whether its runs end only when they are cancelled."""
        return any(step.answer == NEVER_ANSWERED for step in self.steps)

    @property
    def tokens(self) -> int | None:
        """The budget: of what the steps spend that are sure to run, and never reuse a result."""
        if self.budget is None:
            return None
        sure = [step for step in self.steps if step.id in self.given and not step.is_cached]
        spent = sum(step.spends * (1 if step.items is None else len(step.items)) for step in sure)
        return max(1, int(self.budget * spent))

    @property
    def is_short(self) -> bool:
        """Whether its runs use their budget up."""
        return self.budget == SHORT

    def document(self) -> dict[str, Any]:
        """The workflow as it is registered (JSON is YAML)."""
        document: dict[str, Any] = {
            "name": self.name,
            "version": "1.0.0",
            "inputs": [
                {"name": "number", "type": "integer"},
                {"name": "ledger", "type": "string", "default": ""},
            ],
            "steps": [_step_document(step, self) for step in self.steps],
            "outputs": {step.id: step.value for step in self.steps if step.id in self.given},
        }
        if self.tokens is not None:
            document["budget"] = {"tokens": self.tokens}
        if self.limit is not None:
            document["concurrency"] = {"key": "${inputs.number % 2}", "limit": self.limit}
        if self.has_actions:
            document |= {action: [{"step": _simple_step(action)}] for action in ACTIONS.values()}
        return document

    def text(self) -> str:
        return json.dumps(self.document(), indent=1)


def _step_document(step: Step, flow: Flow) -> dict[str, Any]:
    document: dict[str, Any] = {"id": step.id}
    if step.waits_seconds is not None:
        document["wait"] = {"duration": step.waits_seconds}
    elif step.answer is not None:
        form = [{"name": "amount", "type": "integer"}]
        document["wait"] = {"approval": {"message": "Go on?", "form": form}}
    elif step.hears:
        document["wait"] = {"event": {"name": EVENT, "key": "${run.id}"}}
    elif step.calls is not None:
        document["workflow"] = step.calls.name
        added = step.salt if step.items is None else "item"
        number = f"${{inputs.number + {added}}}"
        document["inputs"] = {"number": number, "ledger": "${inputs.ledger}"}
        document |= _items_document(step)
    else:
        document |= _agent_document(step, flow)
    if step.needs:
        document["needs"] = list(step.needs)
    if step.when is not None:
        # True or false by the run's input, so that nothing can be decided before it is known.
        sign = ">=" if step.when else "<"
        document["when"] = f"${{inputs.number {sign} 0}}"
    if step.is_handled:
        handler = _simple_step(step.handler, step.salt)
        handler["inputs"]["errors"] = ["${error.code}"]
        then = "continue" if step.survives else "fail"
        document["on_error"] = {"steps": [handler], "then": then}
    elif step.survives:
        document["on_error"] = "continue"
    return document


def _simple_step(name: str, salt: int = 0) -> dict[str, Any]:
    """A step that reads no other."""
    inputs = {"salt": salt, "number": "${inputs.number}", "ledger": "${inputs.ledger}"}
    return {"id": name, "agent": "inside", "retry": _retry(RETRIED), "inputs": inputs}


def _agent_document(step: Step, flow: Flow) -> dict[str, Any]:
    steps = {other.id: other for other in flow.steps}
    inputs: dict[str, Any] = {
        "salt": step.salt if step.items is None else "${item}",
        "number": "${inputs.number}",
        "ledger": "${inputs.ledger}",
        "spends": step.spends,
        "pause_ms": step.pause_ms,
        "failures": step.failures,
        "is_broken": step.is_broken,
        "gives_file": step.gives_file,
        "values": [steps[other].value for other in step.reads],
        "errors": [f"${{steps.{other}.error.code}}" for other in step.reads_error_of],
    }
    if source := next((other for other in step.reads if steps[other].gives_file), None):
        inputs["document"] = f"${{steps.{source}.outputs.document}}"
    document: dict[str, Any] = {"agent": step.agent, "inputs": inputs}
    document |= _items_document(step)
    if step.is_cached:
        document["cache"] = {}
    document["retry"] = _retry(RETRIED[:-1] if step.is_broken else RETRIED)
    return document


def _items_document(step: Step) -> dict[str, Any]:
    if step.items is None:
        return {}
    return {"for_each": list(step.items), "max_parallel": 1 + step.salt % 3}


def _retry(codes: tuple[str, ...]) -> dict[str, Any]:
    return {"attempts": ATTEMPTS, "delay_seconds": 0, "on": list(codes)}


Feature = Callable[[Step, "Drawing"], Step]


class Drawing:
    """The workflow so far, and the choices."""

    def __init__(
        self, chance: random.Random, quick: bool, children: Sequence[Flow], is_alone: bool
    ) -> None:
        self.chance = chance
        self.quick = quick
        self.is_alone = is_alone
        self.children = children
        self.steps: list[Step] = []

    def some(self, steps: list[Step], most: int) -> list[Step]:
        return self.chance.sample(steps, self.chance.randint(0, min(most, len(steps))))


def _reads(step: Step, drawing: Drawing) -> Step:
    whole = [other for other in drawing.steps if other.gives_value]
    return replace(step, reads=tuple(other.id for other in drawing.some(whole, 3)))


def _reads_errors(step: Step, drawing: Drawing) -> Step:
    broken = [other for other in drawing.steps if other.is_broken and other.survives]
    return replace(step, reads_error_of=tuple(other.id for other in drawing.some(broken, 2)))


def _waits(step: Step, drawing: Drawing) -> Step:
    return replace(step, needs=tuple(other.id for other in drawing.some(drawing.steps, 2)))


def _pauses(step: Step, drawing: Drawing) -> Step:
    return replace(step, pause_ms=drawing.chance.randint(1, MAX_PAUSE_MS))


def _lingers(step: Step, _: Drawing) -> Step:
    """It takes longer than a takeover does: would it outlive its host, it would be seen."""
    return replace(step, pause_ms=LONG_PAUSE_MS)


def _is_flaky(step: Step, drawing: Drawing) -> Step:
    return replace(step, failures=drawing.chance.randint(1, 2))


def _breaks(step: Step, drawing: Drawing) -> Step:
    """Broken steps mostly let the run go on: else little of it would be left to kill."""
    survives = drawing.chance.random() < 0.8
    return replace(step, is_broken=True, failures=0, survives=survives)


def _is_conditional(step: Step, drawing: Drawing) -> Step:
    """Its condition decides even where something it waits for was skipped, so it reads nothing."""
    needs = (*step.needs, *step.reads)
    when = drawing.chance.random() < 0.6
    return replace(step, when=when, reads=(), reads_error_of=(), needs=needs)


def _gives_file(step: Step, _: Drawing) -> Step:
    return replace(step, gives_file=not step.is_broken)


def _asks(step: Step, drawing: Drawing) -> Step:
    """Whoever breaks does so by being rejected."""
    if drawing.is_alone:
        return step
    broken, survives = step.is_broken, step.survives
    answer: Literal["approved", "rejected"] = "rejected" if broken else "approved"
    return replace(_bare(step), answer=answer, is_broken=broken, survives=survives)


def _hears(step: Step, drawing: Drawing) -> Step:
    return step if drawing.is_alone else replace(_bare(step), hears=True)


def _is_handled(step: Step, _: Drawing) -> Step:
    return replace(step, is_handled=step.is_broken)


def _fans_out(step: Step, drawing: Drawing) -> Step:
    if step.is_broken or step.gives_file or not step.executes:
        return step
    return replace(step, items=_draw_items(drawing))


def _draw_items(drawing: Drawing) -> tuple[int, ...]:
    return tuple(drawing.chance.randrange(MAX_VALUE) for _ in range(drawing.chance.randint(1, 5)))


def _calls(step: Step, drawing: Drawing) -> Step:
    if not drawing.children:
        return step
    return replace(_bare(step), calls=drawing.chance.choice(drawing.children))


def _calls_for_each(step: Step, drawing: Drawing) -> Step:
    return replace(step, items=_draw_items(drawing)) if step.calls is not None else step


def _waits_for_time(step: Step, drawing: Drawing) -> Step:
    """For so short that the run is held, or so long that its host gives it up."""
    seconds = (0.01, 0.02) if drawing.quick else (0.05, 0.3, LONG_WAIT_SECONDS)
    return replace(_bare(step), waits_seconds=drawing.chance.choice(seconds))


def _is_cached(step: Step, _: Drawing) -> Step:
    return replace(step, is_cached=not step.is_broken and not step.only_waits and not step.calls)


def _spends(step: Step, drawing: Drawing) -> Step:
    spends = drawing.chance.randint(1, 9)
    return step if step.only_waits or step.calls else replace(step, spends=spends)


def _bare(step: Step) -> Step:
    """Only its place in the order is left."""
    needs = tuple(dict.fromkeys((*step.needs, *step.reads, *step.reads_error_of)))
    return Step(step.id, step.agent, step.salt, needs=needs, when=step.when)


def _placed(step: Step, drawing: Drawing) -> Step:
    """Only ``outside`` can deal with files."""
    files = {other.id for other in drawing.steps if other.gives_file}
    return replace(step, agent="outside") if step.gives_file or files & {*step.reads} else step


FEATURES: tuple[tuple[float, Feature], ...] = (
    (0.8, _reads),
    (0.5, _reads_errors),
    (0.3, _waits),
    (0.7, _pauses),
    (0.05, _lingers),
    (0.15, _is_flaky),
    (0.12, _breaks),
    (0.2, _is_conditional),
    (0.15, _gives_file),
    (0.2, _asks),
    (0.1, _hears),
    (0.6, _is_handled),
    (0.15, _fans_out),
    (0.12, _calls),
    (0.4, _calls_for_each),
    (0.08, _waits_for_time),
    (0.3, _is_cached),
    (0.5, _spends),
    (1.0, _placed),
)
"""How often a step gets each, in the order in which they are drawn."""
SLOW: frozenset[Feature] = frozenset({_lingers, _pauses})


def draw_flow(
    name: str,
    chance: random.Random,
    *,
    quick: bool = False,
    children: Sequence[Flow] = (),
    is_alone: bool = True,
) -> Flow:
    """A random workflow; the same choices give the same.

    Args:
        name: the workflow's name.
        chance: the choices.
        quick: whether it is to do little, and fast.
        children: workflows that it may call: each gives something, and cannot fail.
        is_alone: whether nobody answers it, or tells it of events.
    """
    drawing = Drawing(chance, quick, children, is_alone)
    for number in range(chance.randint(2, MAX_QUICK_STEPS if quick else MAX_STEPS)):
        agent: Literal["inside", "outside"] = chance.choice(("inside", "outside"))
        step = Step(f"s{number}", "inside" if quick else agent, chance.randrange(MAX_VALUE))
        for likelihood, feature in FEATURES:
            if chance.random() < likelihood and not (quick and feature in SLOW):
                step = feature(step, drawing)
        drawing.steps.append(step)
    return Flow(name, tuple(drawing.steps), _sure(drawing.steps))


def _sure(steps: list[Step]) -> tuple[str, ...]:
    """The steps that succeed in every run that does."""
    skipped: set[str] = set()
    for step in steps:
        needed = {*step.reads, *step.needs, *step.reads_error_of}
        if step.when is False or (step.when is None and needed & skipped):
            skipped.add(step.id)
    return tuple(step.id for step in steps if step.id not in skipped and step.gives_value)


def limited(flow: Flow, chance: random.Random) -> Flow:
    """The workflow with limits and actions of its own, or some of them."""
    budget = chance.choice((None, None, SHORT, AMPLE))
    if (replace(flow, budget=1.0).tokens or 0) < 2:
        budget = None
    limit = chance.choice((None, None, 1, 2))
    return replace(flow, budget=budget, limit=limit, has_actions=chance.random() < 0.6)


def endless(flow: Flow) -> Flow:
    """The workflow with a step at its end that waits for what never comes."""
    last = Step("last", "inside", 0, answer="unanswered")
    return replace(flow, steps=(*flow.steps, last), budget=None, has_actions=True)


def lingering(flow: Flow) -> Flow:
    """The workflow with a step that takes longer than a takeover does, in runs that do not wait for
    each other."""
    step = Step("lingers", "inside", 0, pause_ms=LONG_PAUSE_MS)
    return replace(flow, steps=(step, *flow.steps), limit=None, budget=None)


def draw_child(name: str, chance: random.Random) -> Flow:
    """A workflow for others to call."""
    while True:
        flow = draw_flow(name, chance, quick=True, is_alone=False)
        if flow.given and all(step.survives or not step.is_broken for step in flow.steps):
            return flow
