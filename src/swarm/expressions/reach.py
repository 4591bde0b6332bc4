"""Finds steps that can never run. Only what is certain is told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from swarm.definitions.source import Location
from swarm.definitions.workflow import PlacedStep

Finding = tuple[Location, str, str | None]
"""Where something is wrong in the workflow, what it is, and the remedy."""


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What is certain of one step before any run."""

    placed: PlacedStep
    needs: frozenset[str]
    """The steps that it waits for, its guard apart."""
    is_false: bool
    """Whether its ``when`` is false whatever happens."""
    is_constant: bool
    """Whether it holds no expression."""

    @property
    def cannot_fail(self) -> bool:
        """Whether it only waits, for what can neither be refused nor come too late."""
        wait = self.placed.step.wait
        if wait is None or not self.is_constant:
            return False
        is_late = wait.event is not None and wait.event.deadline is not None
        return wait.approval is None and not is_late

    @property
    def is_conditional(self) -> bool:
        return self.placed.step.when is not None


def unreachable_steps(facts: Mapping[str, StepFacts]) -> Iterator[Finding]:
    """The steps that never run, in the order in which they would; and why.

    The rules that make it certain: a step is skipped when its ``when`` is false, and when it has
    none and needs a skipped step; a step that handles an error runs only when its guard has
    failed; once a step has failed whose failure ends the run, nothing starts but what handles it.

    Args:
        facts: by the ids of the steps, free of cycles.
    """
    guards = _Guards(facts)
    never: set[str] = set()
    blocked: dict[str, int] = {}
    graph = {
        step: {need for need in fact.needs if need in facts} | _guard_of(fact)
        for step, fact in facts.items()
    }
    for step in TopologicalSorter(graph).static_order():
        fact = facts[step]
        blocked[step] = guards.successes_needed(step, blocked)
        reason = _own_reason(facts, fact, never) or _reason_of_needs(facts, fact, never, guards)
        if reason is None and blocked[step] & guards.chain_mask(step):
            guard = fact.placed.guard
            reason = (
                (),
                f"it handles the failure of `{guard}`, but needs a step that runs only when "
                f"`{guard}` has not failed",
                "let it not need that step, or write `then: continue`",
            )
        if reason is not None:
            never.add(step)
            location, message, remedy = reason
            yield (
                (*fact.placed.location, *location),
                f"the step `{step}` never runs: {message}",
                remedy,
            )


def _guard_of(fact: StepFacts) -> set[str]:
    return set() if fact.placed.guard is None else {fact.placed.guard}


def _own_reason(
    facts: Mapping[str, StepFacts], fact: StepFacts, never: Collection[str]
) -> Finding | None:
    """Why a step never runs that lies in itself and in its guard."""
    guard = fact.placed.guard
    if fact.is_false:
        return ("when",), "its `when` is always false", "remove the step, or its `when`"
    if guard is None:
        return None
    if guard in never:
        return (), f"it handles the failure of `{guard}`, which never runs", "remove it"
    if facts[guard].cannot_fail:
        return (), f"it handles the failure of `{guard}`, which cannot fail", "remove it"
    return None


def _reason_of_needs(
    facts: Mapping[str, StepFacts], fact: StepFacts, never: set[str], guards: _Guards
) -> Finding | None:
    """Why a step never runs that lies in what it needs."""
    if fact.is_conditional or fact.placed.actions is not None:
        return None
    for need in sorted(fact.needs & never):
        return (
            (),
            f"it needs `{need}`, which never runs",
            f"let it not need `{need}`, or give it a `when` of its own",
        )
    if fact.placed.guard is not None:
        return None
    for need in sorted(fact.needs & facts.keys()):
        if (ending := guards.ending(need)) is not None:
            return (
                (),
                f"it needs `{need}`, which runs only when `{ending}` has failed, and that failure "
                "ends the run",
                f"write `then: continue` in the `on_error` of `{ending}`",
            )
    return None


class _Guards:
    """The steps whose failures are handled, and whose failure ends the run all the same."""

    def __init__(self, facts: Mapping[str, StepFacts]) -> None:
        self._facts = facts
        ending = [
            step
            for step, fact in facts.items()
            if fact.placed.step.handlers and not fact.placed.step.tolerates_failure
        ]
        self._bits = {step: 1 << index for index, step in enumerate(ending)}
        self._names: Sequence[str] = ending

    def chain(self, step: str) -> Iterator[str]:
        """The guard of a step, the guard of that, and so on."""
        guard = self._facts[step].placed.guard
        while guard is not None:
            yield guard
            guard = self._facts[guard].placed.guard

    def chain_mask(self, step: str) -> int:
        mask = 0
        for guard in self.chain(step):
            mask |= self._bits.get(guard, 0)
        return mask

    def ending(self, step: str) -> str | None:
        """The guard whose failure, which ``step`` handles, ends the run; if one does."""
        return next((guard for guard in self.chain(step) if guard in self._bits), None)

    def successes_needed(self, step: str, known: Mapping[str, int]) -> int:
        """The ending guards that cannot have failed when ``step`` runs, as bits."""
        chain = set(self.chain(step))
        mask = 0
        for need in self._facts[step].needs:
            if need not in known or need in chain:
                continue
            if self._facts[need].placed.guard is None:
                mask |= known[need] | self._bits.get(need, 0)
            elif chain.intersection(self.chain(need)):
                mask |= known[need]
        return mask
