"""``swarm runs approve|reject|waiting``: what people decide."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence

import click

from swarm.bootstrap.assembly import Swarm
from swarm.cli.arguments import RUN, STEP
from swarm.cli.context import asynchronous
from swarm.cli.inputs import add_pairs, read_input, take_paths
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.waits import APPROVAL, Wait
from swarm.cli.session import session
from swarm.cli.terminal import clean
from swarm.definitions.fields import FieldDefinition
from swarm.kernel.errors import InputError, InvalidError, NotFoundError
from swarm.kernel.json import JsonObject, dumps
from swarm.store.records import NO_ITEM, RunRecord, StepRecord, StepState

STEP_ARGUMENT = click.argument("step", required=False, type=STEP)
ITEM = click.option(
    "--item", type=click.IntRange(min=0), metavar="N", help="The item of the step, from 0."
)
BY = click.option("--by", metavar="NAME", help="Who decides; by default your login name.")
COMMENT = click.option("--comment", default="", metavar="TEXT", help="Why.")


@click.command("approve", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@STEP_ARGUMENT
@ITEM
@click.option(
    "--value",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="What to fill in for one field of the form; may be given several times.",
)
@click.option(
    "--values", "document", metavar="JSON", help="The form as a JSON object, @FILE, or - for stdin."
)
@BY
@COMMENT
@pass_globals
@asynchronous
async def approve(
    options: Globals,
    run_id: str,
    step: str | None,
    item: int | None,
    pairs: tuple[str, ...],
    document: str | None,
    by: str | None,
    comment: str,
) -> None:
    """Approve what a step waits for; its run goes on at once.

    RUN is an id or the start of one. STEP may be left out where only one step waits for an
    approval. On a terminal, fields of the form that must be filled in are asked for.
    """
    async with session(options) as swarm:
        run = await swarm.runs.get(run_id)
        waiting = choose_waiting(run, await swarm.store.list_steps(run.id), step, item)
        values = read_input(document, swarm.settings.max_input_bytes)
        filled = await _filled(swarm, waiting, values, pairs)
        await _answer(swarm, waiting, True, filled, by, comment, options)


@click.command("reject", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@STEP_ARGUMENT
@ITEM
@BY
@COMMENT
@pass_globals
@asynchronous
async def reject(
    options: Globals, run_id: str, step: str | None, item: int | None, by: str | None, comment: str
) -> None:
    """Reject what a step waits for; the step fails with the code `rejected`.

    RUN is an id or the start of one. STEP may be left out where only one step waits for an
    approval.
    """
    async with session(options) as swarm:
        run = await swarm.runs.get(run_id)
        waiting = choose_waiting(run, await swarm.store.list_steps(run.id), step, item)
        await _answer(swarm, waiting, False, {}, by, comment, options)


def choose_waiting(
    run: RunRecord, steps: Sequence[StepRecord], step: str | None, item: int | None
) -> StepRecord:
    """The one step, or item, of a run that waits for an approval and that is meant.

    Raises:
        NotFoundError: none does; InvalidError: several do.
    """
    waiting = [
        row
        for row in steps
        if row.status is StepState.WAITING
        and row.wait_kind == APPROVAL
        and step in (None, row.step_id)
        and item in (None, row.item_index)
    ]
    if len(waiting) == 1:
        return waiting[0]
    what = f"step {step} of run {run.id}" if step else f"run {run.id}"
    if waiting:
        commands = "; ".join(Wait.of_step(row).commands()[0] for row in waiting[:3])
        raise InvalidError(
            f"{len(waiting)} approvals are waited for in {what}",
            remedy=f"name the step, and its item if it has some: {commands}",
        )
    of_item = "" if item is None else f" for its item {item}"
    raise NotFoundError(
        f"{what} does not wait for an approval{of_item}: the run is {run.status}",
        name=step,
        known=sorted({row.step_id for row in steps}) if step else (),
        remedy=f"`swarm runs show {run.id}` shows its steps, `swarm runs waiting` all that wait",
    )


async def _filled(
    swarm: Swarm, step: StepRecord, values: JsonObject, pairs: Sequence[str]
) -> JsonObject:
    """What was given for the form; what must be given and was not is asked for on a terminal."""
    details = step.wait_details or {}
    form = [FieldDefinition.model_validate_json(dumps(field)) for field in details.get("form", ())]
    if sys.stdin is not None and sys.stdin.isatty():
        if pairs or values or form:
            note(clean(str(details.get("message", ""))))
        given = {*values, *(pair.partition("=")[0] for pair in pairs)}
        missing = [
            field
            for field in form
            if field.required and not field.has_default and field.name not in given
        ]
        pairs = [*pairs, *(f"{field.name}={_ask(field)}" for field in missing)]
    filled = await take_paths(add_pairs(values, pairs, form), form, swarm.artifacts)
    if filled.mounts:
        raise InputError("a directory of this machine cannot be given with an approval")
    return filled.values


def _ask(field: FieldDefinition) -> str:
    choices = f" [{', '.join(map(str, field.enum))}]" if field.enum else f" ({field.type})"
    about = f": {field.description}" if field.description else ""
    answer: str = click.prompt(clean(f"{field.name}{choices}{about}"), err=True)
    return answer


async def _answer(
    swarm: Swarm,
    step: StepRecord,
    approved: bool,
    values: JsonObject,
    by: str | None,
    comment: str,
    options: Globals,
) -> None:
    by = _login_name() if by is None else by
    await swarm.runs.answer(
        step.run_id,
        step.step_id,
        approved=approved,
        values=values,
        by=by,
        comment=comment,
        item_index=step.item_index,
    )
    of_item = step.item_index != NO_ITEM
    if options.json:
        print_json(
            {
                "run_id": step.run_id,
                "step": step.step_id,
                "item": step.item_index if of_item else None,
                "approved": approved,
                "by": by,
                "comment": comment,
                "values": values,
            }
        )
        return
    place = f"{step.step_id}, item {step.item_index}" if of_item else step.step_id
    print_lines([f"{step.run_id} {place} {'approved' if approved else 'rejected'}"])
    note(f"follow the run with: swarm runs logs --follow {step.run_id}")


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return ""
