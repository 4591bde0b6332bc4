"""Which artifacts the records refer to."""

from __future__ import annotations

from swarm.store.ports import Store


async def marked(store: Store, after: str) -> tuple[set[str], str]:
    """The artifacts in all runs after ``after``, and the last run's id."""
    found: set[str] = set()
    last = after
    while True:
        page, reached = await store.artifacts_in_use(last)
        if not reached:
            return found, last
        found |= page
        last = reached


async def marked_outside_runs(store: Store) -> set[str]:
    """The artifacts in events and cached results."""
    found: set[str] = set()
    last = ""
    while True:
        page, last = await store.artifacts_outside_runs(last)
        found |= page
        if not last:
            return found
