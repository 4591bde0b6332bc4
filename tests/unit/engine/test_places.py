"""Places go to the highest priority, then to whoever has waited longest; none is ever lost."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from swarm.engine.places import Places


async def test_the_highest_priority_comes_first_then_the_oldest() -> None:
    places, order = Places(1), []

    async def take(name: str, priority: int) -> None:
        async with places.taken(priority):
            order.append(name)

    async with places.taken():
        tasks = [
            asyncio.create_task(take(name, priority))
            for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1))
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == ["b", "d", "a", "c", "e"]


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=20),
)
def test_no_place_is_lost_or_given_twice(count: int, takers: list[tuple[int, int, bool]]) -> None:
    async def use_all() -> None:
        places, held = Places(count), 0

        async def take(priority: int, turns: int) -> None:
            nonlocal held
            async with places.taken(priority):
                held += 1
                assert held <= count
                try:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                finally:
                    held -= 1

        tasks = []
        for priority, turns, is_given_up in takers:
            task = asyncio.create_task(take(priority, turns))
            tasks.append(task)
            await asyncio.sleep(0)
            if is_given_up:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(1):
            for _ in range(count):  # every place is free again
                await places.taken().__aenter__()

    asyncio.run(use_all())
