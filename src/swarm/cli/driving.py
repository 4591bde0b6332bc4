"""Following runs to their end: the view, Ctrl-C, the result and the exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from swarm.bootstrap.assembly import Swarm
from swarm.bootstrap.retention import run_files
from swarm.cli.details import read_details
from swarm.cli.files import keep_files
from swarm.cli.graphs import run_nodes
from swarm.cli.output import note, print_json
from swarm.cli.queued import queued_note
from swarm.cli.render.graph import levels
from swarm.cli.render.progress import RunView
from swarm.cli.render.results import show_result
from swarm.cli.render.values import STATE_COLORS, duration, elapsed_ms
from swarm.cli.run_documents import run_document
from swarm.cli.signals import SIGNALS
from swarm.cli.terminal import clean, stderr, stdout
from swarm.cli.viewing import Display, Viewing
from swarm.engine.remedies import failure_remedy
from swarm.engine.values import Values
from swarm.kernel.errors import ExitCode
from swarm.store.records import RunRecord, RunState

NAMED_ORPHANS = 3
"""Interrupted runs that are named; the others are counted."""


class Interruption:
    """What Ctrl-C does: first cancel with clean-up, then leave the run to be resumed."""

    def __init__(self, swarm: Swarm, runs: Sequence[RunRecord]) -> None:
        self._swarm = swarm
        self._runs = runs
        self._displays: list[Display] = []
        self._cancelling: asyncio.Task[Any] | None = None
        self._follower = asyncio.current_task()
        self.count = 0

    def attach(self, display: Display) -> None:
        self._displays.append(display)

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM while this lasts."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            if self._cancelling is not None and not self._cancelling.cancel():
                self._cancelling.result()

    def _interrupt(self) -> None:
        self.count += 1
        if self.count == 1:
            what = "the run" if len(self._runs) == 1 else "the runs"
            self._tell(f"cancelling {what}, with clean-up; Ctrl-C again leaves {what} resumable")
            self._cancelling = asyncio.create_task(self._cancel())
        elif self._follower is not None:
            self._follower.cancel()

    async def _cancel(self) -> None:
        await asyncio.gather(*(self._swarm.runs.cancel(run.id) for run in self._runs))

    def _tell(self, message: str) -> None:
        if self._displays:
            self._displays[0].note(message)
        else:
            note(message)


async def follow_runs(swarm: Swarm, runs: Sequence[RunRecord], viewing: Viewing) -> int:
    """Follow runs to their end, print what they gave, and return the exit code.

    Args:
        swarm: the open home.
        runs: runs that were started, here or elsewhere.
        viewing: how to show them.
    """
    interruption = Interruption(swarm, runs)
    with interruption.handled():
        try:
            ended = await _follow_all(swarm, runs, viewing, interruption)
        except asyncio.CancelledError:
            if interruption.count < 2:
                raise
            _tell_left(swarm, runs)
            return ExitCode.INTERRUPTED
    code = await report_runs(swarm, ended, viewing)
    return ExitCode.INTERRUPTED if interruption.count else code


def _tell_left(swarm: Swarm, runs: Sequence[RunRecord]) -> None:
    """Say what becomes of runs whose follower leaves before they have ended."""
    here = [run.id for run in runs if run.id in swarm.runs.driving]
    elsewhere = [run.id for run in runs if run.id not in here]
    if here:
        note(f"left to be resumed: swarm runs resume {' '.join(here)}")
    if elsewhere:
        note(
            f"left to the process that drives it; stop it: swarm runs cancel {' '.join(elsewhere)}"
        )


async def _follow_all(
    swarm: Swarm, runs: Sequence[RunRecord], viewing: Viewing, interruption: Interruption
) -> list[RunRecord]:
    several = len(runs) > 1
    return await asyncio.gather(
        *(_follow(swarm, run, viewing, interruption, several) for run in runs)
    )


async def _follow(
    swarm: Swarm, run: RunRecord, viewing: Viewing, interruption: Interruption, several: bool
) -> RunRecord:
    view = await _view(swarm, run)
    with viewing.display(view, f"{run.id} " if several else "") as display:
        interruption.attach(display)
        if (queued := await queued_note(swarm.peers, await swarm.runs.get(run.id))) is not None:
            display.note(queued)
        async for event in swarm.runs.follow(run.id):
            display.show(event)
    # Not only the end of the events: a failure of the driver itself comes out here.
    return await swarm.runs.wait(run.id)


async def _view(swarm: Swarm, run: RunRecord) -> RunView:
    nodes = await run_nodes(swarm.store, run)
    ordered = [node.id for layer in levels(nodes) for node in layer]
    return RunView.of(run.id, f"{run.workflow_name}@{run.workflow_version}", ordered)


async def report_runs(swarm: Swarm, runs: Sequence[RunRecord], viewing: Viewing) -> int:
    """Print how runs ended and what they gave; the exit code says whether all succeeded."""
    documents = []
    values = Values(swarm.artifacts, swarm.settings.inline_value_bytes)
    for run in runs:
        outputs = await values.loaded(run.outputs) or {}
        folder = viewing.save or run_files(swarm.home, run.id)
        kept = await keep_files(
            outputs,
            swarm.artifacts,
            swarm.home,
            folder,
            replace=viewing.save is not None,
        )
        for_machines = viewing.json or viewing.events
        _report(run, viewing.quiet or for_machines)
        if viewing.json:
            documents.append(run_document(await read_details(swarm.store, values, run), kept))
        elif run.status is RunState.SUCCEEDED and not for_machines:
            show_result(stdout(), outputs, kept)
    if viewing.json:
        print_json(documents[0] if len(documents) == 1 else {"runs": documents})
    succeeded = all(run.status is RunState.SUCCEEDED for run in runs)
    return ExitCode.OK if succeeded else ExitCode.FAILED


def _report(run: RunRecord, quiet: bool) -> None:
    """One line on standard error about how the run ended; the reason, if it failed."""
    terminal = stderr()
    status = terminal.style(run.status, STATE_COLORS.get(run.status), bold=True)
    took = duration(elapsed_ms(run.started_at, run.completed_at))
    if run.status is RunState.SUCCEEDED:
        if not quiet:
            terminal.line(f"run {run.id} {status}" + (f" in {took}" if took else ""))
            if stdout().is_terminal:
                terminal.line()
        return
    if not run.status.is_final:
        terminal.line(f"run {run.id} was interrupted: the process that drove it has ended")
        terminal.line(f"  {terminal.style('remedy:', 'cyan')} swarm runs resume {run.id}")
        return
    where = f"step {run.error_step}: " if run.error_step else ""
    head = terminal.style("error:", "red", bold=True)
    if run.status is RunState.CANCELLED:
        terminal.line(f"run {run.id} {status}" + (f" after {took}" if took else ""))
    else:
        terminal.line(f"{head} {where}{clean(run.error or 'the run failed')}")
    remedy = f"`swarm runs resume {run.id}` carries on from the finished steps"
    has_remedy = "\n  remedy: " in (run.error or "")
    if run.status is RunState.FAILED:
        # A run keeps to the versions that it was created with: what is mended is for a new one.
        remedy = (
            f"see `swarm runs logs {run.id}`; {remedy}, with the same agents;"
            f" `swarm runs retry {run.id}` starts anew, with those registered by then"
        )
        if not has_remedy and (first := failure_remedy(run.error, run.error_code)):
            terminal.line(f"  {terminal.style('remedy:', 'cyan')} {first}")
            has_remedy = True
    terminal.line(f"  {terminal.style('then:' if has_remedy else 'remedy:', 'cyan')} {remedy}")


async def resume_orphans_elsewhere(swarm: Swarm, orphans: Sequence[RunRecord]) -> None:
    """Have interrupted runs resumed by a worker in the background, and say so in one line."""
    if not orphans:
        return
    await swarm.runs.start_worker()
    named = ", ".join(run.id for run in orphans[:NAMED_ORPHANS])
    more = len(orphans) - NAMED_ORPHANS
    note(f"resuming in the background: {named}" + (f" and {more} more" if more > 0 else ""))
