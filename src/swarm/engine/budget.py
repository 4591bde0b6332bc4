"""A budget shared by a run and all that it calls. Exact: time is reserved before it is used.

An attempt reserves its whole time limit, as far as the budget reaches, and gives back what it did
not use. So attempts at once never use more sandbox time than there is; where nothing is left to
reserve, an attempt waits for others to give back, and is refused once there are none. Tokens and
money are counted when they are told of; what is used up refuses all further attempts.
"""

from __future__ import annotations

import asyncio

from swarm.definitions.workflow import BudgetDefinition
from swarm.kernel.errors import RefusedError
from swarm.store.records import Usage

MICROS = 1_000_000
"""Of a US dollar, or of a second."""


class BudgetExceeded(RefusedError):
    """The run's budget is used up."""

    code = "budget"


class Ledger:
    """What a tree of runs may use and has used; belongs to the running event loop."""

    def __init__(self, budget: BudgetDefinition, used: Usage) -> None:
        """``used`` is what the journal says was used so far."""
        self._budget = budget
        # Whole microseconds: sums of fractions could leave a rest that nobody can have.
        self._vm_limit = (
            None if budget.vm_seconds is None else max(1, round(budget.vm_seconds * MICROS))
        )
        self._vm_used = used.vm_time_ms * 1000
        self._vm_reserved = 0
        self._tokens = used.tokens
        self._micros = used.cost_micros
        self._changed = asyncio.Condition()

    async def reserve(self, seconds: float) -> float:
        """Reserve sandbox time for one attempt; returns how much it may use, at most ``seconds``.

        Raises:
            BudgetExceeded: something of the budget is used up.
        """
        async with self._changed:
            while True:
                self.check()
                if self._vm_limit is None:
                    return seconds
                free = self._vm_limit - self._vm_used - self._vm_reserved
                if free > 0:
                    granted = min(max(1, int(seconds * MICROS)), free)
                    self._vm_reserved += granted
                    return granted / MICROS
                await self._changed.wait()

    async def settle(self, reserved: float, used_seconds: float) -> None:
        """Give back what :meth:`reserve` gave, and count what was used of it."""
        async with self._changed:
            if self._vm_limit is not None:
                self._vm_reserved -= round(reserved * MICROS)
            self._vm_used += round(used_seconds * MICROS)
            self._changed.notify_all()

    def charge(self, tokens: int, cost_micros: int) -> None:
        """Count tokens and money."""
        self._tokens += tokens
        self._micros += cost_micros

    def check(self) -> None:
        """Raise BudgetExceeded if something of the budget is used up."""
        budget = self._budget
        vm_limit = None if self._vm_limit is None else self._vm_limit / MICROS
        for what, used, limit, unit in (
            ("money", self._micros / MICROS, budget.usd, "US dollars"),
            ("tokens", self._tokens, budget.tokens, "tokens"),
            ("sandbox time", self._vm_used / MICROS, vm_limit, "seconds"),
        ):
            if limit is not None and used >= limit:
                raise BudgetExceeded(
                    f"the run's budget of {what} is used up: {used:g} of {limit:g} {unit}",
                    remedy="raise `budget` in the workflow, register it and fork the run",
                )
