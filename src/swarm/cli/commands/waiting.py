"""``swarm runs waiting``: everything that waits for somebody or something."""

from __future__ import annotations

from collections.abc import Sequence

import click

from swarm.cli.context import asynchronous, reading
from swarm.cli.documents import waiting_document
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.tables import facts, table
from swarm.cli.render.values import local_time
from swarm.cli.render.waits import APPROVAL, EVENT, TIMER, Wait, form_text
from swarm.cli.terminal import Terminal, clean, stdout
from swarm.store.records import NO_ITEM, RunRecord, StepRecord

KINDS = (APPROVAL, EVENT, TIMER)


@click.command("waiting", cls=SwarmCommand)
@click.option(
    "--for",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Only what waits for this; may be given several times.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="At most so many of each.",
)
@pass_globals
@asynchronous
async def waiting(options: Globals, kinds: tuple[str, ...], limit: int) -> None:
    """List what runs wait for: approvals first, then events, then times; the longest wait first."""
    found: list[tuple[StepRecord, RunRecord]] = []
    left_out: list[str] = []
    async with reading(options) as records:
        for kind in kinds or KINDS:
            steps = await records.store.waiting_steps(kind, limit + 1)
            left_out += [kind] if len(steps) > limit else []
            for step in steps[:limit]:
                run = await records.store.get_run(step.run_id)
                if run is not None:  # it may have been deleted just now
                    found.append((step, run))
    if options.json:
        print_json({"waiting": [waiting_document(step, run) for step, run in found]})
        return
    if not found:
        note("nothing waits")
        return
    terminal = stdout()
    approvals = [(step, run) for step, run in found if step.wait_kind == APPROVAL]
    for step, run in approvals:
        print_lines([*_approval(terminal, step, run), ""])
    others = [(step, run) for step, run in found if step.wait_kind != APPROVAL]
    if others:
        print_lines(_others(terminal, others))
    if left_out:
        note(f"there are more; raise --limit to see them ({', '.join(left_out)})")


def _approval(terminal: Terminal, step: StepRecord, run: RunRecord) -> list[str]:
    """One approval with all that is needed to decide on it."""
    wait = Wait.of_step(step)
    approve, reject = wait.commands()
    place = _place(step)
    pairs = [
        ("workflow", f"{run.workflow_name}@{run.workflow_version}"),
        ("run", run.id),
        ("since", local_time(step.started_at)),
        ("until", local_time(step.wake_at)),
        ("form", form_text(wait.details.get("form") or [])),
        ("approve", approve),
        ("reject", reject),
    ]
    message = clean(str(wait.details.get("message", "")))
    lines = message.splitlines() or [""]
    head = [f"{terminal.style(place, 'magenta', bold=True)}  {lines[0]}", *lines[1:]]
    return [*head, *(f"  {line}" for line in facts(terminal, pairs))]


def _others(terminal: Terminal, found: Sequence[tuple[StepRecord, RunRecord]]) -> list[str]:
    rows = [
        [
            run.id,
            f"{run.workflow_name}@{run.workflow_version}",
            _place(step),
            local_time(step.started_at),
            str(Wait.of_step(step)),
        ]
        for step, run in found
    ]
    return table(terminal, ["RUN", "WORKFLOW", "STEP", "SINCE", "WAITS FOR"], rows)


def _place(step: StepRecord) -> str:
    return step.step_id if step.item_index == NO_ITEM else f"{step.step_id}[{step.item_index}]"
