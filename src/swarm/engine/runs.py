"""The service that starts, drives, follows and mends runs in one process.

A process becomes a *host* the moment it first drives a run: it joins the home's hosts, and from
then on answers its peers (drive this, cancel that, let me follow).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from types import TracebackType

from swarm.dispatch.local_hosts import HostLease, LocalHosts
from swarm.engine.api import RunRequest, Runs
from swarm.engine.creation import RunCreator, closed_steps, reopened_steps
from swarm.engine.driver import RunDriver
from swarm.engine.events import RunEvent
from swarm.engine.files import FileAccess
from swarm.engine.following import Told, finished_event, recorded_events
from swarm.engine.hub import EventHub, Subscription
from swarm.engine.invocations import Invoker
from swarm.engine.logs import RunLog, read_log
from swarm.engine.lookup import find_run
from swarm.engine.peers import PeerRequests, Peers, WorkerStarter
from swarm.engine.pins import Pins
from swarm.kernel.clock import now_text
from swarm.kernel.errors import (
    ConflictError,
    OwnershipLost,
    UnavailableError,
)
from swarm.kernel.home import Home
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import Settings
from swarm.store.ports import ArtifactStore, Store
from swarm.store.records import (
    RunChanges,
    RunFilter,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
)


class RunService(Runs):
    """Everything that can be done with runs, wherever they are driven."""

    def __init__(
        self,
        *,
        store: Store,
        artifacts: ArtifactStore,
        pins: Pins,
        invoker: Invoker,
        hosts: LocalHosts,
        home: Home,
        settings: Settings,
        role: str,
        worker_command: Sequence[str],
        on_join: Callable[[HostLease], None] = lambda lease: None,
    ) -> None:
        """
        Args:
            store: registry and journal.
            artifacts: where files of runs are kept.
            pins: reads what runs are pinned to.
            invoker: runs invocations in this process's sandboxes.
            hosts: the processes of this home.
            home: the home's folders.
            settings: limits.
            role: what this process is (``run``, ``worker``, ...); peers see it.
            worker_command: starts a worker that exits when idle, and prints a line when ready.
            on_join: called once this process has become a host, before its first sandbox.
        """
        self._store = store
        self._artifacts = artifacts
        self._pins = pins
        self._creator = RunCreator(store, pins, settings)
        self._invoker = invoker
        self._home = home
        self._settings = settings
        self._on_join = on_join
        self._hub = EventHub()
        self._drivers: dict[str, RunDriver] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, BaseException] = {}
        self._cancelling: set[str] = set()
        self._adopting = 0
        self._is_ending = False
        self._places = asyncio.Semaphore(settings.max_concurrent_runs)
        self._changed = asyncio.Event()
        self._peers = Peers(hosts, role, PeerRequests(self.adopt, self._cancel_here, self.follow))
        self._workers = WorkerStarter(worker_command, home)

    async def __aenter__(self) -> RunService:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop driving: runs that have not ended stay as they are, to be resumed."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._peers.leave()

    # -- starting --------------------------------------------------------------------------------

    async def create(self, request: RunRequest) -> RunRecord:
        return await self._creator.create(request)

    async def start(self, run_id: str) -> bool:
        if await self._peers.hand_over(run_id):
            return False
        return await self.adopt(run_id)

    async def start_detached(self, run_id: str) -> None:
        if await self._peers.hand_over(run_id):
            return
        await self._workers.start()  # it takes up every orphan, so this run too
        if await self._peers.hand_over(run_id):
            return
        run = await self.get(run_id)
        if not run.status.is_final and not await self._is_owned(run):
            raise UnavailableError(
                f"no background worker took up run {run.id}",
                remedy=f"`swarm runs resume {run.id}` drives it here",
            )

    async def start_worker(self) -> None:
        """Start a background worker, which takes up every orphan and exits when idle."""
        await self._workers.start()

    async def adopt(self, run_id: str, *, forget_cancel: bool = False) -> bool:
        """Claim a run that nobody alive owns, and drive it in this process.

        Args:
            run_id: the run.
            forget_cancel: carry it on even if its cancellation was asked for.

        Returns False if somebody else has it, it has ended, or this process is about to end.
        """
        if self._is_ending:
            return False
        self._adopting += 1
        try:
            run = await self._store.get_run(run_id)
            if run is None or run.status.is_final or await self._is_owned(run):
                return False
            lease = await self._join()
            claimed = await self._store.claim_run(run_id, lease.id, run.owner)
            if claimed is None:
                return False
            if forget_cancel and claimed.cancel_requested:
                changes = RunChanges(run={"cancel_requested": False})
                await self._store.commit(claimed.id, claimed.epoch, changes)
                claimed = replace(claimed, cancel_requested=False)
            self._spawn(claimed)
            return True
        finally:
            self._adopting -= 1

    async def _is_owned(self, run: RunRecord) -> bool:
        return run.owner is not None and await self._peers.is_alive(run.owner)

    async def _join(self) -> HostLease:
        return await self._peers.join(self._on_join)

    def _spawn(self, run: RunRecord) -> None:
        self._failures.pop(run.id, None)
        task = asyncio.create_task(self._drive(run), name=f"drive {run.id}")
        self._tasks[run.id] = task
        task.add_done_callback(lambda done: self._driven(run.id, done))

    async def _drive(self, run: RunRecord) -> None:
        async with self._places:
            workflow = await self._pins.workflow(run.workflow_id)
            agents = await self._pins.agents(run.agents)
            driver = RunDriver(
                run,
                workflow,
                agents,
                journal=self._store,
                invoker=self._invoker,
                files=FileAccess(self._artifacts, self._home.cache, run.mounts),
                log=RunLog(self._home.run_logs, run.id),
                publish=self._hub.publish,
            )
            self._drivers[run.id] = driver
            if run.id in self._cancelling:
                driver.cancel()
            await driver.drive()

    def _driven(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(run_id, None)
        self._drivers.pop(run_id, None)
        self._cancelling.discard(run_id)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures[run_id] = error
        self._hub.close_run(run_id)
        self._changed.set()

    # -- following -------------------------------------------------------------------------------

    async def follow(self, run_id: str) -> AsyncIterator[RunEvent]:
        told = Told()
        while True:
            comes_late = self._hub.has_begun(run_id)
            subscription = self._hub.subscribe(run_id)
            try:
                run = await self.get(run_id)
                recorded = await self._missed_steps(run, subscription, comes_late=comes_late)
                for event in filter(told.is_new, recorded_events(recorded)):
                    yield event
                if run.status.is_final:
                    yield finished_event(run)
                    return
                source = self._live_events(run, subscription)
                async for event in source:
                    if told.is_new(event):
                        yield event
                    if event.kind == "run.finished":
                        return
            finally:
                self._hub.unsubscribe(run_id, subscription)
            latest = await self.get(run_id)
            if not latest.status.is_final and latest.owner == run.owner:
                return

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
        hears_all = run.id in self._tasks and not comes_late
        return [
            step
            for step in steps
            if step.step_id not in heard and not (hears_all and step.status is StepState.RUNNING)
        ]

    async def _live_events(
        self, run: RunRecord, subscription: Subscription
    ) -> AsyncIterator[RunEvent]:
        """What is still to come, from this process or from the host that drives the run."""
        if run.id in self._tasks:
            async for event in subscription:
                yield event
        elif run.owner is not None and await self._is_owned(run):
            async for event in self._peers.follow(run.owner, run.id):
                yield event

    async def wait(self, run_id: str) -> RunRecord:
        async for _ in self.follow(run_id):
            pass
        if (failure := self._failures.get(run_id)) is not None:
            raise failure
        return await self.get(run_id)

    async def get(self, run_id_or_prefix: str) -> RunRecord:
        return await find_run(self._store, run_id_or_prefix)

    async def logs(self, run_id: str) -> list[JsonObject]:
        return await asyncio.to_thread(read_log, self._home.run_logs, run_id)

    # -- mending ---------------------------------------------------------------------------------

    async def orphans(self) -> list[RunRecord]:
        unfinished = await self._store.unfinished_runs()
        return [run for run in unfinished if not await self._is_owned(run)]

    async def resume(self, run_ids: Sequence[str] = ()) -> list[RunRecord]:
        if not run_ids:
            orphans = await self.orphans()
            return [run for run in orphans if await self.adopt(run.id)]
        return [await self._resume_one(run_id) for run_id in run_ids]

    async def _resume_one(self, run_id: str) -> RunRecord:
        run = await self.get(run_id)
        if run.status is RunState.SUCCEEDED:
            raise ConflictError(
                f"run {run.id} has already succeeded", remedy="`swarm runs retry` starts it anew"
            )
        if not run.status.is_final:
            if not await self.adopt(run.id, forget_cancel=True):
                raise ConflictError(
                    f"run {run.id} is being driven by another process",
                    remedy="follow it with `swarm runs logs --follow`",
                )
            return run
        lease = await self._join()
        steps = reopened_steps(await self._store.list_steps(run.id))
        reopened = await self._store.reopen_run(run.id, lease.id, RunChanges(steps=steps))
        if reopened is None:
            raise ConflictError(f"run {run.id} has just been taken up by another process")
        self._spawn(reopened)
        return reopened

    async def retry(self, run_id: str) -> RunRecord:
        run = await self.get(run_id)
        return await self._creator.create_again(run)

    async def cancel(self, run_id: str) -> RunRecord:
        run = await self.get(run_id)
        run = await self._store.request_cancel(run.id) or run
        while not run.status.is_final:
            if run.id in self._tasks:
                self._cancel_here(run.id)
                await self.wait(run.id)
            elif run.owner is not None and await self._is_owned(run):
                await self._peers.cancel(run.owner, run.id)
                await self.wait(run.id)
            else:
                await self._cancel_unowned(run)
            run = await self.get(run.id)
        return run

    def _cancel_here(self, run_id: str) -> None:
        if run_id not in self._tasks:
            return
        self._cancelling.add(run_id)  # for a driver that is still waiting for its place
        driver = self._drivers.get(run_id)
        if driver is not None:
            driver.cancel()

    async def _cancel_unowned(self, run: RunRecord) -> None:
        """End a run that nobody drives; if somebody has just taken it up, do nothing."""
        lease = await self._join()
        claimed = await self._store.claim_run(run.id, lease.id, run.owner)
        if claimed is None:
            return
        steps = closed_steps(await self._store.list_steps(run.id))
        changes = {
            "status": RunState.CANCELLED,
            "completed_at": now_text(),
            "error": "the run was cancelled",
            "error_code": "cancelled",
        }
        with contextlib.suppress(OwnershipLost):
            await self._store.commit(run.id, claimed.epoch, RunChanges(steps=steps, run=changes))

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
        async with self._peers.watching(self._adopt_orphans):
            while True:
                self._changed.clear()
                idle = until_idle and not self._is_busy
                try:
                    await asyncio.wait_for(
                        self._changed.wait(), self._settings.idle_seconds if idle else None
                    )
                except TimeoutError:
                    if not self._is_busy:
                        self._is_ending = True
                        return

    @property
    def _is_busy(self) -> bool:
        return bool(self._tasks) or self._adopting > 0

    async def _adopt_orphans(self) -> None:
        await self.resume()
        self._changed.set()

    async def idle(self) -> None:
        """Wait until this process drives nothing."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def list_runs(self, run_filter: RunFilter) -> list[RunRecord]:
        """Runs, newest first."""
        return await self._store.list_runs(run_filter)

    @property
    def driving(self) -> frozenset[str]:
        """Ids of the runs that this process drives."""
        return frozenset(self._tasks)
