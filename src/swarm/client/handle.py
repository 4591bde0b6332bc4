"""One run, as the program that started or found it sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, TypedDict, cast

from swarm.client.session import Session
from swarm.definitions.loading import workflow_from_json
from swarm.engine.api import ForkRequest
from swarm.engine.events import RunEvent
from swarm.engine.remedies import failure_remedy
from swarm.kernel.errors import InputError, RunFailed, RunInterrupted
from swarm.store.records import NO_ITEM, RunRecord, RunState, StepRecord

TAKEOVER_SECONDS = 10.0
"""How long the living hosts of a home may take to have a dead one's run taken up, or a new one's:
the first of them starts a worker, which takes a second or so where the machine is not loaded."""
LOOK_SECONDS = 0.05


class LogLine(TypedDict):
    """One line that an agent of a run logged."""

    time: str
    """UTC text."""
    step_id: str | None
    attempt: int
    stream: str
    """``log``, ``stdout`` or ``stderr``."""
    level: str
    message: str


class RunHandle:
    """A run that was started, or that was there. It may be driven by any process of the home."""

    def __init__(self, session: Session, run_id: str) -> None:
        """Clients give handles; nobody else makes them."""
        self._session = session
        self._id = run_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id}>"

    @property
    def id(self) -> str:
        """The run's id."""
        return self._id

    # -- looking ---------------------------------------------------------------------------------

    async def status(self) -> RunState:
        """The state that the run is in now."""
        return (await self._session.swarm.runs.get(self._id)).status

    async def record(self) -> RunRecord:
        """All that is recorded of the run; files stand in it as references."""
        return await self._session.whole_run(await self._session.swarm.runs.get(self._id))

    async def steps(self) -> list[StepRecord]:
        """The steps and their items, in the order of the workflow; files stand as references."""
        steps = await self._session.swarm.store.list_steps(self._id)
        return await self._session.whole_steps(steps)

    async def logs(self) -> list[LogLine]:
        """What the run's agents have logged until now."""
        return cast(list[LogLine], await self._session.swarm.runs.logs(self._id))

    async def events(self) -> AsyncGenerator[RunEvent, None]:
        """What happens in the run from now on, up to ``run.finished``.

        Steps that have ended are told first. Ends early if nobody drives the run. Large outputs
        stand as references in the last event; :meth:`result` gives them whole.
        """
        async for event in self._session.swarm.runs.follow(self._id):
            yield event

    async def wait(self, timeout: float | None = None) -> RunState:
        """Wait until the run has ended, and return how.

        Cancelling this, or its time running out, leaves the run alone.

        Args:
            timeout: how long to wait, in seconds; None is for ever.

        Raises:
            RunInterrupted: nobody drives the run any more.
            TimeoutError: it has not ended by then.
        """
        return (await self._ended(timeout)).status

    async def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until the run has ended, and return its outputs.

        A file or directory among them is a :class:`File`, wherever it stands.

        Args:
            timeout: how long to wait, in seconds; None is for ever.

        Raises:
            RunFailed: it failed or was cancelled; has the step, the code and a remedy.
            RunInterrupted: nobody drives the run any more.
            TimeoutError: it has not ended by then.
        """
        run = await self._ended(timeout)
        if run.status is not RunState.SUCCEEDED:
            raise run_failed(run)
        return cast(dict[str, Any], await self._session.shown(run.outputs or {}, run.mounts))

    async def _ended(self, timeout: float | None) -> RunRecord:
        async with asyncio.timeout(timeout):
            run = await self._session.swarm.runs.wait(self._id)
            while not run.status.is_final:
                if not await self._is_taken_over(run):
                    raise RunInterrupted(
                        f"run {run.id} has not ended, and the process that drove it is gone",
                        run_id=run.id,
                        remedy=f"`await handle.resume()`, or `swarm runs resume {run.id}`",
                    )
                run = await self._session.swarm.runs.wait(self._id)
        return run

    async def _is_taken_over(self, run: RunRecord) -> bool:
        """Whether another process takes the run up, as the living hosts of the home see to."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TAKEOVER_SECONDS
        while loop.time() < deadline and await self._session.swarm.peers.living():
            latest = await self._session.swarm.runs.get(run.id)
            if latest.status.is_final or latest.owner != run.owner:
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return False

    # -- steering --------------------------------------------------------------------------------

    async def cancel(self) -> RunState:
        """Stop the run, wherever it is driven, with its clean-up; return how it ended.

        A run that has ended is left as it is.
        """
        return (await self._session.swarm.runs.cancel(self._id)).status

    async def approve(
        self,
        step: str | None = None,
        *,
        values: Mapping[str, object] | None = None,
        by: str = "",
        comment: str = "",
        item: int | None = None,
    ) -> None:
        """Approve what a step waits for; the run goes on at once.

        Args:
            step: its id; may be left out where only one step waits for an approval.
            values: what the step's form asks for.
            by: who approves.
            comment: why.
            item: the index of the item, for a step with ``for_each``.

        Raises:
            NotFoundError: no such step waits for an approval.
            InputError: the values do not fit the form.
            ConflictError: it has just been answered.
        """
        await self._answer(step, True, dict(values or {}), by, comment, item)

    async def reject(
        self, step: str | None = None, *, by: str = "", comment: str = "", item: int | None = None
    ) -> None:
        """Refuse what a step waits for: the step fails with the code ``rejected``.

        Arguments and errors are those of :meth:`approve`.
        """
        await self._answer(step, False, {}, by, comment, item)

    async def _answer(
        self,
        step: str | None,
        approved: bool,
        values: dict[str, object],
        by: str,
        comment: str,
        item: int | None,
    ) -> None:
        await self._session.swarm.runs.answer(
            self._id,
            step,
            approved=approved,
            values=values,
            by=by,
            comment=comment,
            item_index=NO_ITEM if item is None else item,
        )

    async def resume(self, *, latest: bool = False) -> RunHandle:
        """Carry the run on in this process: one that was interrupted, failed or was cancelled.

        Finished steps are not run again.

        Args:
            latest: use the agents and called workflows that are registered now, so that what was
                mended is used; only for a run that has ended.

        Raises:
            ConflictError: it has succeeded, or another process drives it.
        """
        await self._session.tidy()
        await self._session.swarm.runs.resume([self._id], latest=latest)
        return self

    async def retry(self) -> RunHandle:
        """Start a new run with the same workflow and inputs."""
        return await self._start(self._retried())

    async def _retried(self) -> RunRecord:
        return await self._session.drive(await self._session.swarm.runs.retry(self._id))

    async def fork(
        self,
        *,
        from_steps: Sequence[str] | None = None,
        inputs: Mapping[str, object] | None = None,
        step_inputs: Mapping[str, Mapping[str, object]] | None = None,
        pinned: Mapping[str, Mapping[str, object] | None] | None = None,
        latest: bool = False,
    ) -> RunHandle:
        """Start a new run that repeats this one with something changed.

        Args:
            from_steps: steps to run again, with all that depend on them; the results of the others
                are taken over. None runs all.
            inputs: inputs of the run, over those that it had.
            step_inputs: inputs of steps, by step id, over what their definitions give.
            pinned: steps that are not run: their outputs, or None for those that they had.
            latest: use the agents and workflows that are registered now, not those of this run.

        Raises:
            NotFoundError: no such step.
            InputError: the inputs do not fit.
            ConflictError: a result that is to be taken over is not there.
        """
        request = ForkRequest(
            origin=self._id,
            from_steps=None if from_steps is None else tuple(from_steps),
            inputs=await self._changed(inputs),
            step_inputs={
                step: await self._taken(given, ()) for step, given in (step_inputs or {}).items()
            },
            pinned={
                step: None if given is None else await self._taken(given, ())
                for step, given in (pinned or {}).items()
            },
            latest=latest,
        )
        return await self._start(self._forked(request))

    async def _forked(self, request: ForkRequest) -> RunRecord:
        return await self._session.drive(await self._session.swarm.runs.fork(request))

    async def _changed(self, inputs: Mapping[str, object] | None) -> dict[str, Any] | None:
        if inputs is None:
            return None
        run = await self._session.swarm.runs.get(self._id)
        workflow = await self._session.swarm.store.get_workflow(run.workflow_id)
        declared = workflow_from_json(workflow.definition).inputs if workflow is not None else ()
        return await self._taken(inputs, tuple(declared))

    async def _taken(
        self, given: Mapping[str, object], declared: tuple[Any, ...]
    ) -> dict[str, Any]:
        values, mounts = await self._session.taken(given, declared)
        if mounts:
            raise InputError(
                "a fork cannot be given another directory of this machine",
                remedy="start a new run with it",
            )
        return values

    async def _start(self, starting: Any) -> RunHandle:
        task: asyncio.Task[RunRecord] = asyncio.create_task(starting)
        return RunHandle(self._session, (await self._session.finish(task)).id)


def run_failed(run: RunRecord) -> RunFailed:
    """The error that tells how a run failed."""
    message, _, told = (run.error or "").partition("\n  remedy: ")
    if run.status is RunState.CANCELLED:
        return RunFailed(message or "the run was cancelled", run_id=run.id, code="cancelled")
    remedy = told or failure_remedy(run.error, run.error_code)
    return RunFailed(
        message or "the run failed",
        run_id=run.id,
        code=run.error_code,
        step=run.error_step,
        remedy=remedy or f"`swarm runs logs {run.id}` shows what its agents logged",
    )
