"""Events of the runs that this process drives, handed to whoever follows them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from swarm.engine.events import EventKind, RunEvent
from swarm.kernel.json import JsonObject

SUBSCRIBER_EVENTS = 10_000
"""Events that wait for one slow follower; beyond that its logs and progress are dropped, oldest
first. States of steps and runs are never dropped: their number is bounded by the run."""

_DROPPABLE = frozenset({"log", "step.progress", "step.stream"})


class Subscription:
    """One follower's queue. Iterate to receive; ends after :meth:`EventHub.close_run`."""

    def __init__(self) -> None:
        self._events: deque[RunEvent] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    def put(self, event: RunEvent) -> None:
        if len(self._events) >= SUBSCRIBER_EVENTS and event.kind in _DROPPABLE:
            return
        self._events.append(event)
        self._arrived.set()

    def close(self) -> None:
        self._closed = True
        self._arrived.set()

    def waiting_steps(self) -> frozenset[str]:
        """The steps of which there are events that have not been received."""
        return frozenset(event.step_id for event in self._events if event.step_id is not None)

    async def __aiter__(self) -> AsyncIterator[RunEvent]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()


PublishEvent: TypeAlias = Callable[[str, EventKind, str | None, JsonObject], None]
"""Tells the followers of a run: its id, kind, step, data."""


class EventHub:
    """Publishes the events of each run, numbered, to its subscriptions."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._sequence: dict[str, int] = {}
        self._begun: dict[str, RunEvent] = {}

    def publish(self, run_id: str, kind: EventKind, step_id: str | None, data: JsonObject) -> None:
        """Number an event and hand it out.

        Where nobody follows the run, it is only counted; a run's first is kept for who comes late.
        """
        sequence = self._sequence.get(run_id, 0) + 1
        self._sequence[run_id] = sequence
        subscriptions = self._subscriptions.get(run_id, ())
        if not subscriptions and sequence > 1:
            return
        event = RunEvent(run_id, kind, step_id, data, sequence=sequence)
        if sequence == 1:
            self._begun[run_id] = event
        for subscription in subscriptions:
            subscription.put(event)

    def begun(self, run_id: str) -> RunEvent | None:
        """The first event of a run that is driven here; None if nothing was published of it yet."""
        return self._begun.get(run_id)

    def subscribe(self, run_id: str) -> Subscription:
        subscription = Subscription()
        self._subscriptions.setdefault(run_id, []).append(subscription)
        return subscription

    def unsubscribe(self, run_id: str, subscription: Subscription) -> None:
        remaining = [
            other for other in self._subscriptions.get(run_id, ()) if other is not subscription
        ]
        if remaining:
            self._subscriptions[run_id] = remaining
        else:
            self._subscriptions.pop(run_id, None)

    def close_run(self, run_id: str) -> None:
        """The run is no longer driven here: every subscription ends."""
        self._sequence.pop(run_id, None)
        self._begun.pop(run_id, None)
        for subscription in self._subscriptions.pop(run_id, ()):
            subscription.close()
