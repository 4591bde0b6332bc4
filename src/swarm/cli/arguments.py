"""Arguments that several commands take, with what completes them in a shell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from swarm.bootstrap.records import Records
from swarm.cli.context import reading
from swarm.cli.options import Globals
from swarm.kernel.errors import SwarmError
from swarm.store.records import RunFilter

COMPLETED_RUNS = 100
"""Runs that completion looks through, newest first."""


class Reference(click.ParamType[str]):
    """The name of something recorded in the home; completion asks the home."""

    def __init__(
        self, name: str, candidates: Callable[[Records], Awaitable[Iterable[tuple[str, str]]]]
    ) -> None:
        self.name = name
        self._candidates = candidates

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip():
            self.fail("it must not be empty", param, ctx)
        return text

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        options = ctx.find_object(Globals) or Globals()
        try:
            found = asyncio.run(self._collect(options))
        except SwarmError:
            return []  # a shell that completes has no place for an error
        return [
            CompletionItem(value, help=text)
            for value, text in found
            if value.startswith(incomplete)
        ]

    async def _collect(self, options: Globals) -> list[tuple[str, str]]:
        async with reading(options) as records:
            return sorted(set(await self._candidates(records)))


async def _agents(records: Records) -> Iterable[tuple[str, str]]:
    return [(record.name, record.description) for record in await records.store.list_agents()]


async def _workflows(records: Records) -> Iterable[tuple[str, str]]:
    return [(record.name, record.description) for record in await records.store.list_workflows()]


async def _runs(records: Records) -> Iterable[tuple[str, str]]:
    runs = await records.store.list_runs(RunFilter(limit=COMPLETED_RUNS))
    return [(run.id, f"{run.workflow_name} {run.status}") for run in runs]


async def _awaited_events(records: Records) -> Iterable[tuple[str, str]]:
    steps = await records.store.waiting_steps("event", COMPLETED_RUNS)
    return [(step.wait_name or "", f"{step.run_id} {step.step_id}") for step in steps]


class StepOfRun(Reference):
    """A step of the run that an argument before it names."""

    def __init__(self) -> None:
        super().__init__("step", _no_steps)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        # Behind an option that lacks its value click leaves the arguments before it unnamed.
        run = ctx.params.get("run_id") or next(iter(ctx.args), None)

        async def steps(records: Records) -> Iterable[tuple[str, str]]:
            found = await records.store.list_steps((await records.run(run or "")).id)
            return [(step.step_id, str(step.status)) for step in found if step.item_index < 0]

        return Reference("step", steps).shell_complete(ctx, param, incomplete) if run else []


async def _no_steps(records: Records) -> Iterable[tuple[str, str]]:
    return ()


AGENT = Reference("agent", _agents)
WORKFLOW = Reference("workflow", _workflows)
RUN = Reference("run", _runs)
STEP = StepOfRun()
EVENT_NAME = Reference("name", _awaited_events)


def check_all(paths: Sequence[Path], all_: bool) -> None:
    """``register`` wants paths, or ``--all`` with at most one folder.

    Raises:
        click.UsageError
    """
    if not paths and not all_:
        raise click.UsageError("give a PATH, or --all")
    if all_ and len(paths) > 1:
        raise click.UsageError("give at most one folder with --all")
