"""Budgets: what is reserved and used at once never exceeds what there is."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.definitions.workflow import BudgetDefinition
from swarm.engine.budget import BudgetExceeded, Ledger
from swarm.store.records import Usage

NOTHING = Usage()
SECONDS = st.floats(0.01, 10)


@given(st.floats(0.5, 30), st.lists(st.tuples(SECONDS, st.floats(0, 1)), max_size=12))
def test_attempts_at_once_never_use_more_than_there_is(
    limit: float, attempts: list[tuple[float, float]]
) -> None:
    async def use_all() -> tuple[float, int]:
        ledger = Ledger(BudgetDefinition(vm_seconds=limit), NOTHING)
        used, refused = 0.0, 0

        async def attempt(wanted: float, share: float) -> None:
            nonlocal used, refused
            try:
                granted = await ledger.reserve(wanted)
            except BudgetExceeded:
                refused += 1
                return
            assert 0 < granted <= wanted
            await asyncio.sleep(0)
            used += granted * share
            await ledger.settle(granted, granted * share)

        await asyncio.gather(*(attempt(*each) for each in attempts))
        return used, refused

    async def in_time() -> tuple[float, int]:
        async with asyncio.timeout(10):
            return await use_all()

    used, refused = asyncio.run(in_time())
    # Each attempt's use is rounded to a microsecond.
    assert used <= limit + len(attempts) * 1e-6
    if refused:
        assert used >= limit - len(attempts) * 1e-6


async def test_an_attempt_waits_for_what_others_may_give_back() -> None:
    ledger = Ledger(BudgetDefinition(vm_seconds=10), NOTHING)
    assert await ledger.reserve(10) == 10
    waiting = asyncio.create_task(ledger.reserve(5))
    await asyncio.sleep(0)
    assert not waiting.done()
    await ledger.settle(10, 4)
    assert await waiting == 5


async def test_a_budget_that_is_no_whole_number_of_microseconds_ends() -> None:
    ledger = Ledger(BudgetDefinition(vm_seconds=2.9343954319156405), NOTHING)
    granted = await ledger.reserve(10)
    await ledger.settle(granted, granted)
    with pytest.raises(BudgetExceeded):
        async with asyncio.timeout(10):
            await ledger.reserve(1)


async def test_tokens_and_money_refuse_once_they_are_used_up() -> None:
    ledger = Ledger(BudgetDefinition(tokens=100, usd=1.0), Usage(tokens=60))
    assert await ledger.reserve(30) == 30
    ledger.charge(39, 0)
    ledger.check()
    ledger.charge(1, 0)
    with pytest.raises(BudgetExceeded, match="budget of tokens is used up: 100 of 100"):
        await ledger.reserve(1)
    money = Ledger(BudgetDefinition(usd=0.5), Usage(cost_micros=499_999))
    money.charge(0, 1)
    with pytest.raises(BudgetExceeded, match="budget of money"):
        money.check()
