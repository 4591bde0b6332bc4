"""Following runs: what is still to come, and for those who come late what the journal tells."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

from swarm.dispatch.ports import Peers
from swarm.engine.driving import Driving
from swarm.engine.events import EventKind, RunEvent
from swarm.engine.hub import EventHub, Subscription
from swarm.engine.lookup import find_run
from swarm.kernel.json import JsonObject
from swarm.store.ports import Store
from swarm.store.records import NO_ITEM, RunRecord, RunState, StepRecord, StepState

AGAIN_SECONDS = 0.2
"""After a stream from another host has ended although its run goes on, until it is asked again."""


class Followers:
    """Follows runs, wherever they are driven."""

    def __init__(
        self,
        store: Store,
        hub: EventHub,
        driving: Driving,
        peers: Peers,
        join: Callable[[], Awaitable[object]],
        take_up: Callable[[RunRecord], Awaitable[object]],
    ) -> None:
        """
        Args:
            store: the journal.
            hub: what happens in the runs that are driven here.
            driving: which those are.
            peers: who drives the others.
            join: makes this process a host, so that it can be told when a run goes on.
            take_up: has a run that nobody drives taken up, here if nobody else can.
        """
        self._take_up = take_up
        self._store = store
        self._hub = hub
        self._driving = driving
        self._peers = peers
        self._join = join
        self._followed: Counter[str] = Counter()

    def follows(self, run_id: str) -> bool:
        """Whether somebody here follows a run that nobody drives, and so wants it to go on."""
        return self._followed[run_id] > 0

    async def follow(self, run_id: str) -> AsyncIterator[RunEvent]:
        """See :meth:`swarm.engine.api.Runs.follow`."""
        told = Told()
        while True:
            begun = self._hub.begun(run_id)
            subscription = self._hub.subscribe(run_id)
            self._followed[run_id] += 1
            try:
                run = await find_run(self._store, run_id)
                comes_late = begun is not None
                recorded = await self._missed_steps(run, subscription, comes_late=comes_late)
                missed = list(recorded_events(recorded))
                if begun is not None and not run.status.is_final:
                    missed = in_order(missed, begun)
                for event in filter(told.is_new, missed):
                    yield event
                if run.status.is_final:
                    yield finished_event(run)
                    return
                async for event in self._live_events(run, subscription):
                    if told.is_new(event):
                        yield event
                    if event.kind == "run.finished":
                        return
            finally:
                self._hub.unsubscribe(run_id, subscription)
                self._followed[run_id] -= 1
                self._followed += Counter()  # forgets those that nobody follows
            latest = await find_run(self._store, run_id)
            has_moved = latest.owner != run.owner or latest.status is not run.status
            if not latest.status.is_final and not has_moved:
                if not self._peers.spreads:
                    return
                # The stream broke, or the owner is gone: somebody goes on with the run.
                await asyncio.sleep(AGAIN_SECONDS)

    async def _missed_steps(
        self, run: RunRecord, subscription: Subscription, *, comes_late: bool
    ) -> list[StepRecord]:
        """The steps that the journal must tell a follower of.

        The journal runs ahead of what is published. Who hears a run from its start on, or has heard
        of a step since, is told by that, and in order.
        """
        steps = await self._store.list_steps(run.id)
        if run.status.is_final:
            return steps
        heard = subscription.waiting_steps()
        hears_all = self._driving.drives(run.id) and not comes_late
        return [
            step
            for step in steps
            if step.step_id not in heard and not (hears_all and step.status is StepState.RUNNING)
        ]

    async def _live_events(
        self, run: RunRecord, subscription: Subscription
    ) -> AsyncIterator[RunEvent]:
        """What is still to come, from this process or from the host that drives the run.

        Of a run that only waits, or that waits for its turn, nothing comes until it is taken up;
        the follower stays.
        """
        if self._driving.drives(run.id):
            async for event in subscription:
                yield event
        elif self._driving.is_queued(run.id):
            async for event in self._until_taken_elsewhere(run, subscription):
                yield event
        elif run.owner is not None and await self._peers.is_alive(run.owner):
            async for document in self._peers.follow(run.owner, run.id):
                yield RunEvent.from_json(document)
        elif self._waits_for_its_turn(run):
            # Whoever has it in a queue may leave: who follows it is ready to take it up.
            await self._take_up(run)
            async for event in self._until_taken_elsewhere(run, subscription):
                yield event
        elif run.status is RunState.WAITING and run.owner is None:
            yield RunEvent(run.id, "run.waiting", None, {"wake_at": run.wake_at})
            await self._join()
            await self._driving.set_alarm()
            async for event in self._until_taken_elsewhere(run, subscription):
                yield event

    def _waits_for_its_turn(self, run: RunRecord) -> bool:
        """Whether the run, which nobody drives, is in a queue: the fleet's, or a process's own."""
        if self._peers.spreads:
            return run.status is not RunState.WAITING
        is_keyed = run.concurrency_key is not None
        return is_keyed and run.status is RunState.PENDING and run.owner is None

    async def _until_taken_elsewhere(
        self, run: RunRecord, subscription: Subscription
    ) -> AsyncIterator[RunEvent]:
        """What comes of a run that nobody drives yet, unless another process takes it up.

        That process, which may have come to cancel the run, need not know of this one: the journal
        is looked at whenever it may have done so.
        """
        events = aiter(subscription)
        coming = asyncio.ensure_future(anext(events, None))
        taken = asyncio.ensure_future(self._peers.until_taken(run.id))
        try:
            while True:
                await asyncio.wait({coming, taken}, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    event = coming.result()
                    if event is None:
                        return
                    yield event
                    coming = asyncio.ensure_future(anext(events, None))
                else:
                    taken.result()
                    if not self._driving.drives(run.id) and await self._has_moved(run):
                        return
                    taken = asyncio.ensure_future(self._peers.until_taken(run.id))
        finally:
            coming.cancel()
            taken.cancel()

    async def _has_moved(self, run: RunRecord) -> bool:
        """Whether the run has another owner or state than when it was read."""
        latest = await find_run(self._store, run.id)
        return latest.owner != run.owner or latest.status is not run.status


class Told:
    """What a follower has been told, so that it is told once, by whomever."""

    def __init__(self) -> None:
        self._ended: set[tuple[str, int]] = set()
        self._started: set[tuple[str, int, int]] = set()
        self._waiting: set[tuple[str, int]] = set()
        self._begun: str | None = None
        self._is_waiting = False

    def is_new(self, event: RunEvent) -> bool:
        """Whether the event says something that was not told; from now on it was."""
        step = (event.step_id or "", int(event.data.get("index", NO_ITEM)))
        is_new = True
        if event.kind in ("step.finished", "item.finished"):
            is_new = step not in self._ended
            self._ended.add(step)
            self._waiting.discard(step)
        elif event.kind == "step.waiting":
            is_new = step not in self._waiting
            self._waiting.add(step)
        elif event.kind in ("step.started", "item.started"):
            attempt = (*step, int(event.data.get("attempt", 1)))
            is_new = attempt not in self._started
            self._started.add(attempt)
        elif event.kind == "run.started":
            is_new = event.time != self._begun
            self._begun = event.time
            self._is_waiting = self._is_waiting and not is_new
        elif event.kind == "run.waiting":
            is_new = not self._is_waiting
            self._is_waiting = True
        return is_new


def recorded_events(steps: Iterable[StepRecord]) -> Iterator[RunEvent]:
    """The events that tell how far a run has come."""
    for step in steps:
        is_item = step.item_index != NO_ITEM
        data: JsonObject = {"index": step.item_index} if is_item else {}
        kind: EventKind
        if step.status is StepState.RUNNING:
            data |= {
                "attempt": max(step.attempt, 1),
                "agent": f"{step.agent_name}@{step.agent_version}" if step.agent_name else None,
            }
            if step.item_count is not None:
                data["items"] = step.item_count
            kind, time = "item.started" if is_item else "step.started", step.started_at
        elif step.status is StepState.WAITING:
            data |= {
                "for": step.wait_kind, "details": step.wait_details, "wake_at": step.wake_at
            }  # fmt: skip
            kind, time = "step.waiting", step.started_at
        elif step.status.is_final:
            data |= {
                "status": str(step.status),
                "error": step.error,
                "error_code": step.error_code,
                "duration_ms": step.duration_ms,
            }
            kind, time = "item.finished" if is_item else "step.finished", step.completed_at
        else:
            continue
        yield RunEvent(step.run_id, kind, step.step_id, data, time=time or "")


def in_order(recorded: Iterable[RunEvent], begun: RunEvent) -> list[RunEvent]:
    """What a late follower missed: what ended before this owner began, its beginning, the rest."""
    before: list[RunEvent] = []
    after: list[RunEvent] = []
    for event in recorded:
        had_ended = event.kind in ("step.finished", "item.finished") and event.time < begun.time
        (before if had_ended else after).append(event)
    return [*before, begun, *after]


def finished_event(run: RunRecord) -> RunEvent:
    """The last event of a run that has ended."""
    return RunEvent(
        run.id,
        "run.finished",
        None,
        {
            "status": str(run.status),
            "outputs": run.outputs,
            "error": run.error,
            "error_code": run.error_code,
            "error_step": run.error_step,
        },
        time=run.completed_at or "",
    )
