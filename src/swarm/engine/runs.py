"""The service that starts, drives, follows and mends runs in one process.

A process becomes a *host* the moment it first drives a run: it joins the home's hosts, and from
then on answers its peers (drive this, cancel that, let me follow) and watches over them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType

from swarm.dispatch.ports import Duties, Membership, Peers, is_spread
from swarm.engine.api import ForkRequest, RunRequest, Runs
from swarm.engine.background import WorkerStarter
from swarm.engine.creation import RunCreator, reopened_steps
from swarm.engine.driving import Driving, Neighbours
from swarm.engine.events import RunEvent
from swarm.engine.following import Followers
from swarm.engine.forking import RunForker
from swarm.engine.hub import EventHub
from swarm.engine.inbox import Inbox
from swarm.engine.invocations import Invoker
from swarm.engine.logs import read_log
from swarm.engine.lookup import find_run
from swarm.engine.pins import Pins
from swarm.engine.placement import foremost, is_understood, placement, refuse_newer
from swarm.engine.values import Values
from swarm.kernel.clock import now_text
from swarm.kernel.errors import ConflictError, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import Settings
from swarm.store.ports import ArtifactStore, Store
from swarm.store.records import (
    NO_ITEM,
    RunChanges,
    RunFilter,
    RunRecord,
    RunState,
    StepRecord,
)

SWEPT_AT_ONCE = 1000
"""Runs that are read at once when those that nobody drives are looked for."""


class RunService(Runs):
    """Everything that can be done with runs, wherever they are driven."""

    def __init__(
        self,
        *,
        store: Store,
        artifacts: ArtifactStore,
        pins: Pins,
        invoker: Invoker,
        peers: Peers,
        home: Home,
        settings: Settings,
        worker_command: Sequence[str],
        on_join: Callable[[Membership], None] = lambda membership: None,
    ) -> None:
        """
        Args:
            store: registry and journal.
            artifacts: where files of runs are kept.
            pins: reads what runs are pinned to.
            invoker: runs invocations in this process's sandboxes.
            peers: the other processes that drive runs.
            home: the home's folders.
            settings: limits.
            worker_command: starts a worker that exits when idle, and prints a line when ready.
            on_join: called once this process has become a host, before its first sandbox.
        """
        self._store = store
        self._pins = pins
        self._home = home
        self._settings = settings
        self._on_join = on_join
        self._values = Values(artifacts, settings.inline_value_bytes)
        self._creator = RunCreator(store, pins, self._values, settings)
        self._forker = RunForker(store, pins, self._creator, self._values)
        self._inbox = Inbox(store, settings)
        self._hub = EventHub()
        self._changed = asyncio.Event()
        self._taken_over: set[str] = set()
        self._peers = peers
        self._workers = WorkerStarter(worker_command, home)
        self._driving = Driving(
            store=store,
            artifacts=artifacts,
            pins=pins,
            creator=self._creator,
            invoker=invoker,
            values=self._values,
            hub=self._hub,
            home=home,
            settings=settings,
            neighbours=self._neighbours(),
            changed=self._has_changed,
        )
        self._followers = Followers(
            store, self._hub, self._driving, self._peers, self._join, self._take_up
        )

    def _duties(self) -> Duties:
        """What this process does when a peer asks, or is gone."""
        return Duties(
            drive=self._adopt_for_peer,
            take=self._driving.take_offered,
            cancel=self._driving.cancel_here,
            follow=self._events_for_peer,
            wake=self._wake_here,
            freed=self._driving.freed,
            room=lambda: self._driving.room,
            on_death=self._host_died,
            on_loss=self._driving.drop,
        )

    def _neighbours(self) -> Neighbours:
        """What driving asks of the rest of the process about other processes."""
        return Neighbours(
            join=self._join_as,
            is_alive=self._peers.is_alive,
            wake=self.wake,
            cancel=self.cancel,
            freed=self._peers.tell_freed,
            takes=lambda run: self._peers.hand_over(placement(run)),
            spreads=self._peers.spreads,
            place=self._place,
        )

    def _has_changed(self) -> None:
        self._changed.set()
        self._peers.has_room()

    async def __aenter__(self) -> RunService:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop driving: runs that have not ended stay as they are, to be resumed.

        Those that this process took over from one that died are left to a worker.
        """
        left = self._taken_over & self._driving.ids
        await self._driving.stop()
        await self._peers.leave()
        if left and not self._peers.is_long_lived:
            await self._workers.start()

    # -- starting --------------------------------------------------------------------------------

    async def create(self, request: RunRequest) -> RunRecord:
        return await self._creator.create(request)

    async def start(self, run_id: str) -> bool:
        if await self._peers.hand_over(placement(await self.get(run_id))):
            return False
        return await self.adopt(run_id)

    async def _adopt_for_peer(self, run_id: str) -> bool:
        return await self.adopt(run_id)

    async def _place(self, runs: Sequence[RunRecord]) -> Sequence[RunRecord]:
        """Have runs that nobody drives taken up by others; those that are left to this process."""
        runs = runs if self._peers.spreads else [run for run in runs if is_understood(run)]
        left = {each.run_id for each in await self._peers.place([placement(run) for run in runs])}
        return [run for run in runs if run.id in left]

    async def _take_up(self, run: RunRecord) -> None:
        if await self._place([run]):
            await self.adopt(run.id)

    async def start_detached(self, run: RunRecord) -> None:
        if await self._peers.hand_over(placement(run)):
            return
        await self._workers.start()  # it takes up every orphan, so this run too
        if await self._peers.hand_over(placement(run)):
            return
        run = await self.get(run.id)
        # One that only waits was taken up and given up again.
        is_left = run.status in (RunState.PENDING, RunState.RUNNING)
        if is_left and not await self._is_owned(run):
            raise UnavailableError(
                f"no background worker took up run {run.id}",
                remedy=f"`swarm runs resume {run.id}` drives it here",
            )

    async def start_worker(self) -> None:
        """Start a background worker, which takes up every orphan and exits when idle."""
        await self._workers.start()

    async def adopt(self, run_id: str, *, forget_cancel: bool = False) -> bool:
        """See :meth:`swarm.engine.driving.Driving.adopt`."""
        return await self._driving.adopt(run_id, forget_cancel=forget_cancel)

    async def _is_owned(self, run: RunRecord) -> bool:
        return run.owner is not None and await self._peers.is_alive(run.owner)

    async def _join(self) -> Membership:
        return await self._peers.join(self._duties(), self._on_join)

    async def _join_as(self) -> str:
        return (await self._join()).id

    # -- following -------------------------------------------------------------------------------

    def follow(self, run_id: str) -> AsyncIterator[RunEvent]:
        return self._followers.follow(run_id)

    async def _events_for_peer(self, run_id: str) -> AsyncIterator[JsonObject]:
        async for event in self.follow(run_id):
            yield event.as_json()

    async def wait(self, run_id: str) -> RunRecord:
        ended = await self._driving.ended(run_id)
        if ended is not None:
            return await self.get(run_id)
        async for _ in self.follow(run_id):
            pass
        run = await self.get(run_id)
        failure = self._driving.failure(run_id)
        if failure is not None and not run.status.is_final:
            raise failure
        return run

    async def get(self, run_id_or_prefix: str) -> RunRecord:
        return await find_run(self._store, run_id_or_prefix)

    async def logs(self, run_id: str) -> list[JsonObject]:
        return await asyncio.to_thread(read_log, self._home.run_logs, run_id)

    async def value(self, stored: JsonValue) -> JsonValue:
        """A value of a run's record, which may hold a reference to it where it is large."""
        return await self._values.loaded(stored)

    # -- mending ---------------------------------------------------------------------------------

    async def orphans(self) -> list[RunRecord]:
        spreads = self._peers.spreads
        # Of those that nobody has taken yet, a queue takes care.
        return [
            run
            async for page in self._undriven(begun=spreads)
            for run in page
            if run.owner is not None or not spreads
        ]

    async def _undriven(self, *, begun: bool = False) -> AsyncIterator[list[RunRecord]]:
        """Runs that have not ended, do not wait, and that nobody alive drives: by pages, as there
        may be very many, and without their documents."""
        living: dict[str | None, bool] = {None: False}
        callers: dict[str, tuple[bool, str | None]] = {}
        after = ""
        while page := await self._store.unfinished_runs(after, SWEPT_AT_ONCE, begun=begun):
            after = page[-1].id
            undriven = []
            for run in page:
                if await self._lives(run.owner, living):
                    continue
                if not await self._is_called(run, living, callers):
                    undriven.append(run)
            yield undriven

    async def _lives(self, owner: str | None, living: dict[str | None, bool]) -> bool:
        if owner is not None and owner not in living:
            living[owner] = await self._peers.is_alive(owner)
        return living[owner]

    async def _is_called(
        self,
        run: RunRecord,
        living: dict[str | None, bool],
        callers: dict[str, tuple[bool, str | None]],
    ) -> bool:
        """Whether who drives its caller, or is to, sees to the run: it goes on, and starts the runs
        that it calls. One that has waited may have been taken up elsewhere since: if that host
        dies, a caller that is driven already hears nothing of it."""
        caller_id = run.parent_run_id
        if caller_id is None or (self._peers.spreads and is_spread(run)):
            return False
        if caller_id not in callers:
            caller = await self._store.get_run(caller_id)
            goes_on = caller is not None and (
                caller.status in (RunState.PENDING, RunState.RUNNING)
                or (caller.status is RunState.WAITING and caller.owner is not None)
            )
            callers[caller_id] = goes_on, caller.owner if caller is not None else None
        goes_on, owner = callers[caller_id]
        return goes_on and (run.owner is None or not await self._lives(owner, living))

    async def resume(self, run_ids: Sequence[str] = (), *, latest: bool = False) -> list[RunRecord]:
        if run_ids:
            return [await self._resume_one(run_id, latest) for run_id in run_ids]
        taken: list[RunRecord] = []
        counts: Counter[tuple[str, str]] = Counter()
        async for undriven in self._undriven():
            if self._peers.spreads:
                undriven = list(await self._place(foremost(undriven, counts)))
            taken += [run for run in undriven if await self.adopt(run.id)]
        ready = [await self.get(run_id) for run_id in await self._store.ready_runs(now_text())]
        left = await self._place(ready)
        return [*taken, *[run for run in left if await self.adopt(run.id)]]

    async def _resume_one(self, run_id: str, latest: bool) -> RunRecord:
        run = await self.get(run_id)
        if run.status is RunState.SUCCEEDED:
            raise ConflictError(
                f"run {run.id} has already succeeded", remedy="`swarm runs retry` starts it anew"
            )
        refuse_newer(run)
        if not run.status.is_final:
            if not await self._go_on(run):
                raise ConflictError(
                    f"run {run.id} is being driven by another process",
                    remedy="follow it with `swarm runs logs --follow`",
                )
            return run
        # Where there is a queue, who may drive it is decided as for a new run.
        host_id = None if self._peers.spreads else await self._join_as()
        compiled = await self._pins.workflow(run.workflow_id)
        steps = reopened_steps(await self._store.list_steps(run.id), compiled)
        pins: dict[str, JsonValue] = {}
        if latest:
            pinned = await self._pins.references(compiled)
            pins = {"agents": dict(pinned.agents), "workflows": dict(pinned.workflows)}
        changes = RunChanges(steps=steps, run=pins)
        reopened = await self._store.reopen_run(run.id, host_id, changes)
        if reopened is None:
            raise ConflictError(f"run {run.id} has just been taken up by another process")
        if host_id is not None:
            self._driving.take(reopened)
        elif await self._place([reopened]):
            await self.adopt(reopened.id)
        return reopened

    async def _go_on(self, run: RunRecord) -> bool:
        """Have a run that has not ended go on; False if somebody drives it."""
        if not self._peers.spreads or run.cancel_requested:
            return await self.adopt(run.id, forget_cancel=True)
        if await self._is_owned(run):
            return False
        return not await self._place([run]) or await self.adopt(run.id)

    async def retry(self, run_id: str) -> RunRecord:
        return await self._creator.create_again(await self.get(run_id))

    async def fork(self, request: ForkRequest) -> RunRecord:
        return await self._forker.fork(request)

    async def cancel(self, run_id: str) -> RunRecord:
        run = await self.get(run_id)
        run = await self._store.request_cancel(run.id) or run
        while not run.status.is_final:
            if run.owner is None and not self._peers.spreads:
                refuse_newer(run)
            if self._driving.drives(run.id):
                self._driving.cancel_here(run.id)
                await self.wait(run.id)
            elif run.owner is not None and await self._is_owned(run):
                await self._peers.cancel(run.owner, run.id)
                await self.wait(run.id)
            elif await self._place([run]):
                await self.adopt(run.id)  # its clean-up needs a driver
            else:
                await self._peers.until_taken(run.id)
            run = await self.get(run.id)
        return run

    # -- waiting runs ----------------------------------------------------------------------------

    async def answer(
        self,
        run_id: str,
        step_id: str | None,
        *,
        approved: bool,
        values: JsonObject | None = None,
        by: str = "",
        comment: str = "",
        item_index: int = NO_ITEM,
    ) -> StepRecord:
        run = await self.get(run_id)
        step = await self._inbox.waiting_step(run, step_id, item_index)
        await self._inbox.answer(step, approved, values or {}, by, comment)
        await self.wake(run.id)
        return step

    async def send_event(
        self, name: str, key: str | None, payload: JsonValue, event_id: str | None = None
    ) -> tuple[str, list[str]]:
        event, waiting = await self._inbox.put(name, key, payload, event_id)
        for run_id in waiting:
            await self.wake(run_id)
        return event.id, waiting

    async def wake(self, run_id: str) -> None:
        """Have a run look at what its steps wait for, in whatever process it belongs to.

        A run that nobody drives is taken up by a long-lived host, by a process that follows it, by
        the one that drives its caller, or by this one if it is a host; else by a worker that is
        started for it.
        """
        run = await self.get(run_id)
        if run.status.is_final or self._driving.look_here(run.id):
            return
        if run.owner is not None and await self._is_owned(run):
            await self._peers.wake(run.owner, run.id)
        elif not await self._place([run]):
            return
        elif self._peers.is_host:
            await self.adopt(run.id)
        elif not await self._peers.offer(run.id):
            await self._workers.start()

    async def _wake_here(self, run_id: str) -> bool:
        """A peer says that something has come for a run."""
        if self._driving.look_here(run_id):
            return True
        is_wanted = self._peers.is_long_lived or self._followers.follows(run_id)
        return is_wanted and await self.adopt(run_id)

    async def _host_died(self) -> None:
        """Another host is gone: see that its runs go on."""
        if self._peers.is_long_lived:
            await self.resume()
            await self._driving.set_alarm()
        elif await self._peers.is_first():
            # Starting a worker for them would take longer than their users should wait.
            taken = {run.id for run in await self.resume()}
            self._taken_over = (self._taken_over | taken) & self._driving.ids
        await self._driving.look_at_queues()
        self._changed.set()

    # -- working ---------------------------------------------------------------------------------

    async def work(self, until_idle: bool, on_ready: Callable[[], None]) -> None:
        """Be a host for others: take up orphans and whatever is handed over.

        Args:
            until_idle: return once there has been no run for ``idle_seconds``.
            on_ready: called when peers can reach this process.
        """
        await self._join()
        on_ready()
        await self.resume()
        await self._driving.set_alarm()
        while True:
            self._changed.clear()
            idle = until_idle and not self._driving.is_busy
            try:
                await asyncio.wait_for(
                    self._changed.wait(), self._settings.idle_seconds if idle else None
                )
            except TimeoutError:
                if self._driving.end():
                    return

    async def drain(self) -> None:
        """Take up nothing more and, where others share the work, let what is driven here end for
        ``drain_seconds``: what has not ended by then goes on elsewhere, from its last step."""
        if not self._peers.spreads:
            return
        self._driving.refuse()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._driving.idle()

    async def idle(self) -> None:
        """Wait until this process drives nothing."""
        await self._driving.idle()

    async def list_runs(self, run_filter: RunFilter) -> list[RunRecord]:
        """Runs, newest first."""
        return await self._store.list_runs(run_filter)

    @property
    def driving(self) -> frozenset[str]:
        """Ids of the runs that this process drives."""
        return self._driving.ids
