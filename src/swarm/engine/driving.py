"""The runs that this process drives: takes them up, drives them, and hears how they end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from msgspec.structs import replace

from swarm.dispatch.ports import is_spread
from swarm.engine.budget import Ledger
from swarm.engine.calling import Caller
from swarm.engine.compiled import CompiledStep
from swarm.engine.creation import RunCreator
from swarm.engine.driver import DriverTools, RunDriver
from swarm.engine.files import FileAccess
from swarm.engine.hub import EventHub
from swarm.engine.invocations import Invoker
from swarm.engine.logs import RunLog
from swarm.engine.patience import FIRST_PAUSE_SECONDS, patiently
from swarm.engine.pins import Pins
from swarm.engine.places import Places
from swarm.engine.values import Values
from swarm.kernel.clock import from_text, now, now_text
from swarm.kernel.errors import DatabaseError, NotFoundError
from swarm.kernel.home import Home
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import Settings
from swarm.store.ports import ArtifactStore, Store
from swarm.store.records import NewRun, RunChanges, RunRecord, RunState, StepRecord, Usage

LONGEST_SLEEP_SECONDS = 3_600.0
"""The alarm looks at the clock again at least so often, as the clock may be set meanwhile."""
FAILURES_KEPT = 100
"""Runs of which a process remembers what kept it from driving them."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What driving asks of the rest of the process about other processes."""

    join: Callable[[], Awaitable[str]]
    """Become a host; gives its id."""
    is_alive: Callable[[str], Awaitable[bool]]
    wake: Callable[[str], Awaitable[None]]
    """Have a run go on, wherever it is or should be driven."""
    cancel: Callable[[str], Awaitable[object]]
    """Cancel a run, wherever it is driven, and wait for its end."""
    freed: Callable[[str, str], Awaitable[None]]
    """Tell others that a run with this concurrency key (of this project) has ended."""
    takes: Callable[[RunRecord], Awaitable[bool]]
    """Whether a worker takes the run from the queue."""
    spreads: bool
    """Whether runs that nobody drives lie in a queue; see :class:`swarm.dispatch.ports.Peers`."""
    place: Callable[[Sequence[RunRecord]], Awaitable[Sequence[RunRecord]]]
    """Have runs that nobody drives taken up by others; gives those that are left to this process.
    """


class Driving(Caller):
    """The drivers of this process."""

    def __init__(
        self,
        *,
        store: Store,
        artifacts: ArtifactStore,
        pins: Pins,
        creator: RunCreator,
        invoker: Invoker,
        values: Values,
        hub: EventHub,
        home: Home,
        settings: Settings,
        neighbours: Neighbours,
        changed: Callable[[], None],
    ) -> None:
        """``changed`` is called whenever a run is no longer driven here."""
        self._store = store
        self._artifacts = artifacts
        self._pins = pins
        self._creator = creator
        self._invoker = invoker
        self._values = values
        self._hub = hub
        self._home = home
        self._settings = settings
        self._neighbours = neighbours
        self._changed = changed
        self._drivers: dict[str, RunDriver] = {}
        self._tasks: dict[str, asyncio.Task[RunRecord]] = {}
        self._failures: dict[str, BaseException] = {}
        self._cancelling: set[str] = set()
        self._queued: dict[str, tuple[str, str]] = {}
        """The runs that wait here, with their concurrency keys and projects."""
        self._ledgers: dict[str, Ledger] = {}
        self._trees: Counter[str] = Counter()
        """Runs of a tree that are driven here, by its root, which may be driven elsewhere."""
        self._background: set[asyncio.Task[object]] = set()
        self._adopting = 0
        self._is_ending = False
        self._places = Places(settings.max_concurrent_runs)
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at: str | None = None
        self._rung: str | None = None
        """Until when runs that are due have been given to the queue."""

    # -- what is driven here ---------------------------------------------------------------------

    @property
    def ids(self) -> frozenset[str]:
        """Ids of the runs that this process drives."""
        return frozenset(self._tasks)

    @property
    def is_busy(self) -> bool:
        """Whether this process drives a run, or has promised to."""
        return bool(self._tasks or self._queued or self._adopting or self._alarm_at)

    def drives(self, run_id: str) -> bool:
        return run_id in self._tasks

    def is_queued(self, run_id: str) -> bool:
        """Whether the run waits here for others with its concurrency key to end."""
        return run_id in self._queued

    def failure(self, run_id: str) -> BaseException | None:
        """Why a run is not driven here any more although it has not ended."""
        return self._failures.get(run_id)

    def end(self) -> bool:
        """Take up nothing any more, unless something is driven here; whether that is so."""
        self._is_ending = not self.is_busy
        return self._is_ending

    def refuse(self) -> None:
        """Take up nothing any more; what is driven goes on."""
        self._is_ending = True

    async def stop(self) -> None:
        """Stop driving: runs that have not ended stay as they are, to be resumed."""
        self._is_ending = True
        if self._alarm is not None:
            self._alarm.cancel()
        await self.drop()

    async def drop(self) -> None:
        """Let go of all that is driven now, and wait until its sandboxes are gone: it is for
        others to take up, as this process is taken for dead."""
        tasks = [*self._tasks.values(), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def room(self) -> int:
        """How many more runs may be taken up now."""
        return 0 if self._is_ending else self._settings.max_concurrent_runs - len(self._tasks)

    async def ended(self, run_id: str) -> RunRecord | None:
        """Wait until a run is not driven here any more; the run, if that is because it has ended.

        None, at once, if it is not driven here.
        """
        task = self._tasks.get(run_id)
        if task is None:
            return None
        await asyncio.wait((task,))
        if task.cancelled() or task.exception() is not None:
            return None
        run = task.result()
        return run if run.status.is_final else None

    async def idle(self) -> None:
        """Wait until this process drives nothing."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    # -- taking up -------------------------------------------------------------------------------

    async def adopt(self, run_id: str, *, forget_cancel: bool = False) -> bool:
        """Claim a run that nobody alive owns, and drive it in this process.

        Args:
            run_id: the run.
            forget_cancel: carry it on even if its cancellation was asked for.

        Returns False if somebody else has it, it has ended, or this process is about to end. A run
        that must wait for others with its concurrency key is queued here.
        """
        if self._is_ending:
            return False
        self._adopting += 1
        try:
            claimed = await self._claim(run_id)
            if claimed is None:
                return await self._queue(run_id)
            if forget_cancel and claimed.cancel_requested:
                changes = RunChanges(run={"cancel_requested": False})
                await self._store.commit(claimed.id, claimed.epoch, changes, owner=claimed.owner)
                claimed = replace(claimed, cancel_requested=False)
            self.take(claimed)
            return True
        finally:
            self._adopting -= 1

    async def take_offered(self, run_ids: Sequence[str]) -> list[str]:
        """Drive runs that were offered to this process, a host, as ones that nobody drives: they
        are claimed without being looked at. :meth:`adopt` is for those that remain.

        Returns the ids of those that are driven here now.
        """
        if self._is_ending:
            return []
        self._adopting += 1
        try:
            found = await self._store.take_runs(run_ids, await self._neighbours.join())
            for each in found:
                self.take(each.run, each.steps)
        finally:
            self._adopting -= 1
        return [each.run.id for each in found]

    async def _claim(self, run_id: str) -> RunRecord | None:
        """Claim a run that has not ended, from nobody or from a host that is dead.

        Only with a run to claim does this process become a host: a host takes over from others.
        """
        run = await self._store.get_run(run_id)
        if run is None or run.status.is_final or await self._is_owned(run):
            return None
        host_id = await self._neighbours.join()
        return await self._store.claim_run(run_id, host_id, run.owner)

    async def _queue(self, run_id: str) -> bool:
        run = await self._store.get_run(run_id)
        if run is None or run.status is not RunState.PENDING or run.owner is not None:
            self._queued.pop(run_id, None)
            return False
        if run.concurrency_key is None:
            return False
        if self._neighbours.spreads and await self._neighbours.takes(run):
            return False  # it is given a job when a place is free
        self._queued[run_id] = (run.concurrency_key, run.project_id)
        return True

    async def _is_owned(self, run: RunRecord) -> bool:
        return run.owner is not None and await self._neighbours.is_alive(run.owner)

    def take(self, run: RunRecord, steps: Sequence[StepRecord] | None = None) -> None:
        """Drive a run that was claimed for this process; ``steps`` are its rows, if known."""
        self._failures.pop(run.id, None)
        self._queued.pop(run.id, None)
        self._trees[_root(run)] += 1
        task = asyncio.create_task(self._drive(run, steps), name=f"drive {run.id}")
        self._tasks[run.id] = task
        task.add_done_callback(lambda done: self._driven(run, done))

    async def _drive(self, run: RunRecord, steps: Sequence[StepRecord] | None) -> RunRecord:
        if run.parent_run_id in self._tasks:
            # It has its caller's place: waiting for another one, both could wait for ever.
            return await self._drive_in_place(run, steps)
        async with self._places.taken(run.priority):
            return await self._drive_in_place(run, steps)

    async def _drive_in_place(
        self, run: RunRecord, steps: Sequence[StepRecord] | None
    ) -> RunRecord:
        workflow = await self._pins.workflow(run.workflow_id)
        wanted = {reference: run.agents[reference] for reference in workflow.agents}
        tools = DriverTools(
            journal=self._store,
            invoker=self._invoker,
            files=FileAccess(self._artifacts, self._home.cache, run.mounts),
            values=self._values,
            ledger=await self._ledger(run),
            caller=self,
            log=RunLog(self._home.run_logs, run.id),
            publish=self._hub.publish,
            settings=self._settings,
        )
        driver = RunDriver(run, workflow, await self._pins.agents(wanted), tools)
        self._drivers[run.id] = driver
        if run.id in self._cancelling:
            driver.cancel()
        return await driver.drive(steps)

    async def _ledger(self, run: RunRecord) -> Ledger | None:
        """The budget that the run shares with its callers and all that they call."""
        root_id = _root(run)
        if root_id in self._ledgers:
            return self._ledgers[root_id]
        root = run if root_id == run.id else await self.get(root_id)
        budget = (await self._pins.workflow(root.workflow_id)).definition.budget
        if budget is None:
            return None
        used = Usage(root.tree_vm_time_ms, root.tree_api_tokens, root.tree_cost_micros)
        return self._ledgers.setdefault(root_id, Ledger(budget, used))

    # -- what drivers hear -----------------------------------------------------------------------

    def cancel_here(self, run_id: str) -> None:
        if run_id not in self._tasks:
            return
        self._cancelling.add(run_id)  # for a driver that is still waiting for its place
        driver = self._drivers.get(run_id)
        if driver is not None:
            driver.cancel()

    def look_here(self, run_id: str) -> bool:
        """Have a run that is driven here look at what its steps wait for."""
        driver = self._drivers.get(run_id)
        if driver is not None:
            driver.look()
        return run_id in self._tasks

    def _driven(self, run: RunRecord, task: asyncio.Task[RunRecord]) -> None:
        self._tasks.pop(run.id, None)
        driver = self._drivers.pop(run.id, None)
        self._cancelling.discard(run.id)
        self._trees[root_id := _root(run)] -= 1
        if not self._trees[root_id]:
            del self._trees[root_id]
            self._ledgers.pop(root_id, None)
        self._hub.close_run(run.id)
        if not task.cancelled():
            if (error := task.exception()) is not None:
                self._note_failure(run.id, error)
                is_lasting = not isinstance(error, DatabaseError) or not self._neighbours.spreads
                follow_up = partial(self._follow_up, run, None)
                self._see_to(follow_up if is_lasting else partial(self._take_again, run))
            elif driver is not None and driver.has_missed_something:
                self._see_to(partial(self.adopt, run.id))
            elif _concerns_others(ended := task.result()):
                self._see_to(partial(self._follow_up, run, ended))
        self._changed()

    def _note_failure(self, run_id: str, error: BaseException) -> None:
        """For whoever waits for the run; the latest of them, for nobody says that nobody does."""
        self._failures[run_id] = error
        while len(self._failures) > FAILURES_KEPT:
            self._failures.pop(next(iter(self._failures)))

    async def _take_again(self, run: RunRecord) -> None:
        """Go on with a run that the database kept this process from driving, once it is back.

        Nobody else would: the run's owner lives.
        """
        await asyncio.sleep(FIRST_PAUSE_SECONDS)
        if self._is_ending or await self._neighbours.join() != run.owner:
            return  # for others to do: this process is taken for dead, or soon is gone
        claimed = await self._store.claim_run(run.id, run.owner, run.owner)
        if claimed is not None:  # else it has ended, or is another's by now
            self.take(claimed)

    def _see_to(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do what others wait for, and nobody else would do."""
        self._spawn(patiently(work, lambda: self._is_ending))

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _follow_up(self, run: RunRecord, ended: RunRecord | None) -> None:
        """Tell who waits for the run that it has ended, or only waits."""
        latest = ended or await self._store.get_run(run.id)
        if run.parent_run_id is not None:
            await self._tell_caller(run, is_final=latest is None or latest.status.is_final)
        if latest is None or not latest.status.is_final:
            await self._nudge_caller(run)
            await self.set_alarm()
        elif run.concurrency_key is not None:
            await self.freed(run.concurrency_key, run.project_id)
            await self._neighbours.freed(run.concurrency_key, run.project_id)
        self._changed()

    async def _tell_caller(self, run: RunRecord, *, is_final: bool) -> None:
        parent_id = run.parent_run_id or ""
        driver = self._drivers.get(parent_id)
        if driver is not None:
            driver.called_run_changed((run.parent_step_id or "", run.parent_item_index or 0))
        elif is_final:
            await self._neighbours.wake(parent_id)

    async def _nudge_caller(self, run: RunRecord) -> None:
        """Let a caller that is driven elsewhere see that the run only waits."""
        if self._neighbours.spreads and run.parent_run_id not in (None, *self._drivers):
            caller = await self._store.get_run(run.parent_run_id or "")
            if caller is not None and caller.owner is not None:
                await self._neighbours.wake(caller.id)

    async def freed(self, concurrency_key: str, project_id: str) -> None:
        """A run with this key has ended: take up as many of those that wait for it as may go on."""
        if self._neighbours.spreads:
            next_one = await self._store.queued_runs(concurrency_key, project_id, limit=1)
            for run in await self._neighbours.place(next_one):
                await self.adopt(run.id)
            return
        key = (concurrency_key, project_id)
        mine = [run_id for run_id, its_key in self._queued.items() if its_key == key]
        if not mine:
            return
        waiting = [run.id for run in await self._store.queued_runs(*key)]
        # Those that do not wait any more were taken up elsewhere, perhaps by a host that died.
        for run_id in [*(each for each in waiting if each in mine), *set(mine).difference(waiting)]:
            if run_id in self._queued and not await self.adopt(run_id):
                self._hub.close_run(run_id)  # somebody else has it: its followers look there
            if run_id in self._queued:
                return

    async def look_at_queues(self) -> None:
        """Another host has died, which may have taken up runs that wait here, or ended some that
        they wait for, and told nobody."""
        for key in set(self._queued.values()):
            await self.freed(*key)

    # -- the alarm -------------------------------------------------------------------------------

    async def set_alarm(self) -> None:
        """Wake up when the next waiting run that nobody drives is due."""
        wake_at = await self._store.next_wake(self._rung)
        if wake_at == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = None, wake_at
        if wake_at is not None:
            seconds = max(0.0, (from_text(wake_at) - now()).total_seconds())
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(
                min(seconds, LONGEST_SLEEP_SECONDS), lambda: self._see_to(self._ring)
            )
        self._changed()

    async def _ring(self) -> None:
        self._alarm = self._alarm_at = None
        moment = now_text()
        due = await self._store.due_runs(moment)
        if self._neighbours.spreads:
            runs = [run for run_id in due if (run := await self._store.get_run(run_id))]
            due = [run.id for run in await self._neighbours.place(runs)]
            self._rung = moment
        for run_id in due:
            await self.adopt(run_id)
        await self.set_alarm()

    # -- called runs -----------------------------------------------------------------------------

    async def new_run(
        self, caller: RunRecord, step: StepRecord, compiled: CompiledStep, inputs: JsonObject
    ) -> NewRun:
        return await self._creator.called_run(caller, step, compiled, inputs)

    async def start(self, run_id: str) -> None:
        if run_id in self._tasks:
            return
        run = await self.get(run_id)
        is_elsewhere = (
            self._neighbours.spreads and is_spread(run) and await self._neighbours.takes(run)
        )
        if is_elsewhere or not await self.adopt(run_id):
            run = await self.get(run_id)
            await self._tell_caller(run, is_final=run.status.is_final)

    async def get(self, run_id: str) -> RunRecord:
        run = await self._store.get_run(run_id)
        if run is None:
            raise NotFoundError(f"the run {run_id} is gone")
        return run

    async def owners(self, run_ids: Sequence[str]) -> dict[str, tuple[RunState, str | None]]:
        found = await self._store.run_owners(run_ids)
        if gone := sorted(set(run_ids) - found.keys()):
            raise NotFoundError(f"the run {gone[0]} is gone")
        return found

    async def cancel(self, run_id: str) -> None:
        await self._neighbours.cancel(run_id)


def _root(run: RunRecord) -> str:
    """The first of all that called the run, or the run itself."""
    return run.root_run_id or run.id


def _concerns_others(run: RunRecord) -> bool:
    """Whether anybody must be told how a run stands that is driven no more."""
    return not run.status.is_final or bool(run.parent_run_id or run.concurrency_key)
