"""Which step comes when: a pure state machine over a DAG.

A :class:`Plan` is made once per workflow; a :class:`Progress` follows one run through it. Rules:

* A step is *reachable* once everything it depends on has ended.
* Once a step has failed that the run does not survive, nothing further starts but the handlers of
  failed steps; what is running may end, so that its result is not lost to a later resume.
* A reachable step is skipped when something it depends on was skipped, unless the step has a
  ``when`` of its own, which then decides.
* A handler is skipped unless the step that it guards has failed.

Ending a step costs time in proportion to the steps that wait for it, never to the size of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swarm.store.records import StepState


@dataclass(frozen=True, slots=True)
class Plan:
    """The DAG: for each step what it depends on, and what depends on it."""

    dependencies: Mapping[str, frozenset[str]]
    dependents: Mapping[str, tuple[str, ...]]
    conditional: frozenset[str]
    """Steps with a ``when`` of their own."""
    tolerant: frozenset[str]
    """Steps whose failure the run survives."""
    guards: Mapping[str, str]
    """For each handler the step whose failure it handles; that is among its dependencies."""

    @classmethod
    def of(
        cls,
        dependencies: Mapping[str, frozenset[str]],
        conditional: Iterable[str] = (),
        tolerant: Iterable[str] = (),
        guards: Mapping[str, str] | None = None,
    ) -> Plan:
        """Make a plan; ``dependencies`` must be acyclic and closed (checked at registration)."""
        dependents: dict[str, list[str]] = {step: [] for step in dependencies}
        for step, needed in dependencies.items():
            for other in needed:
                dependents[other].append(step)
        return cls(
            dependencies,
            {step: tuple(waiting) for step, waiting in dependents.items()},
            frozenset(conditional),
            frozenset(tolerant),
            dict(guards or {}),
        )

    def downstream(self, step: str) -> frozenset[str]:
        """The step and every step that depends on it, directly or through others."""
        found = {step}
        pending = [step]
        while pending:
            for other in self.dependents[pending.pop()]:
                if other not in found:
                    found.add(other)
                    pending.append(other)
        return frozenset(found)


class Progress:
    """How far one run has come."""

    def __init__(self, plan: Plan, ended: Mapping[str, StepState] | None = None) -> None:
        """Start from the steps that already ``ended`` (none for a new run)."""
        self._plan = plan
        self._ended: dict[str, StepState] = dict(ended or {})
        self._waiting_for = {
            step: sum(other not in self._ended for other in needed)
            for step, needed in plan.dependencies.items()
            if step not in self._ended
        }
        self._failed = any(self._is_fatal(step, state) for step, state in self._ended.items())

    @property
    def failed(self) -> bool:
        """Whether a step's failure has decided the run."""
        return self._failed

    @property
    def done(self) -> bool:
        """Whether every step has ended."""
        return len(self._ended) == len(self._plan.dependencies)

    @property
    def unreached(self) -> list[str]:
        """The steps that have not ended."""
        return [step for step in self._plan.dependencies if step not in self._ended]

    def reachable(self) -> list[str]:
        """The steps that may be looked at now, in the order of the definition."""
        return [
            step for step, count in self._waiting_for.items() if count == 0 and self.may_start(step)
        ]

    def end(self, step: str, state: StepState) -> list[str]:
        """Note that ``step`` ended as ``state``; return the steps that this made reachable."""
        self._ended[step] = state
        self._waiting_for.pop(step, None)
        self._failed = self._failed or self._is_fatal(step, state)
        reachable = []
        for other in self._plan.dependents[step]:
            if other in self._waiting_for:
                self._waiting_for[other] -= 1
                if self._waiting_for[other] == 0 and self.may_start(other):
                    reachable.append(other)
        return reachable

    def may_start(self, step: str) -> bool:
        """Whether the run's failure, if it has failed, leaves this step to be looked at."""
        guard = self._plan.guards.get(step)
        return not self._failed or (
            guard is not None and self._ended.get(guard) is StepState.FAILED
        )

    def is_skipped(self, step: str) -> bool:
        """Whether a reachable step is skipped because of how what it depends on has ended."""
        guard = self._plan.guards.get(step)
        if guard is not None and self._ended.get(guard) is not StepState.FAILED:
            return True
        return step not in self._plan.conditional and any(
            self._ended.get(other) is StepState.SKIPPED for other in self._plan.dependencies[step]
        )

    def _is_fatal(self, step: str, state: StepState) -> bool:
        return state is StepState.FAILED and step not in self._plan.tolerant
