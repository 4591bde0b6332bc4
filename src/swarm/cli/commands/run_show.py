"""``swarm runs show``"""

from __future__ import annotations

from pathlib import Path

import click

from swarm.bootstrap.records import Records
from swarm.bootstrap.retention import run_files
from swarm.cli.arguments import RUN, STEP
from swarm.cli.context import asynchronous, reading
from swarm.cli.details import RunDetails, read_details
from swarm.cli.files import keep_files
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.queued import queued_note
from swarm.cli.render.details import attempt_table, item_table, run_facts, step_table
from swarm.cli.render.results import show_result, show_values
from swarm.cli.render.tables import facts
from swarm.cli.render.values import STATE_COLORS, duration, elapsed_ms, local_time
from swarm.cli.render.waits import Wait
from swarm.cli.run_documents import invocation_document, run_document, step_document
from swarm.cli.terminal import clean, stdout
from swarm.engine.values import Values
from swarm.kernel.errors import NotFoundError
from swarm.store.records import NO_ITEM, StepRecord, StepState


@click.command("show", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@click.option(
    "--step",
    "step_id",
    type=STEP,
    metavar="STEP",
    help="Show this step: its attempts, inputs and outputs.",
)
@click.option(
    "--item", type=click.IntRange(min=0), metavar="N", help="With --step: this item of it, from 0."
)
@click.option("--items", is_flag=True, help="List the items of steps that run over some.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Copy the files that the run gave into this folder.",
)
@pass_globals
@asynchronous
async def show(
    options: Globals,
    run_id: str,
    step_id: str | None,
    item: int | None,
    items: bool,
    save: Path | None,
) -> None:
    """Show a run's steps, outputs and files.

    RUN is an id or the start of one. Large values are cut for the screen; --json prints them whole,
    but for those of steps, which --step gives.
    """
    if item is not None and step_id is None:
        raise click.UsageError("--item needs --step")
    async with reading(options) as records:
        run = await records.run(run_id)
        values = Values(records.artifacts, records.settings.inline_value_bytes)
        details = await read_details(records.store, values, run)
        if step_id is not None:
            await _show_step(options, details, values, choose_step(details, step_id, item))
            return
        await _show_run(options, records, details, items, save)


async def _show_run(
    options: Globals, records: Records, details: RunDetails, items: bool, save: Path | None
) -> None:
    run = details.run
    is_orphan = await records.is_orphan(run)
    kept = await keep_files(
        run.outputs or {},
        records.artifacts,
        records.home,
        save or run_files(records.home, run.id),
        replace=save is not None,
    )
    if options.json:
        print_json(run_document(details, kept, items=items))
        return
    terminal = stdout()
    status = terminal.style(str(run.status), STATE_COLORS.get(run.status), bold=True)
    print_lines([f"{terminal.style(run.id, bold=True)}  {status}", ""])
    print_lines([*facts(terminal, run_facts(details)), "", *step_table(terminal, details)])
    if items:
        for step in details.steps:
            if step.item_count is not None:
                print_lines(["", *item_table(terminal, step, details)])
    if run.outputs:
        print_lines([""])
        show_result(terminal, run.outputs, kept)
    waiting = [
        row
        for row in [*details.steps, *(row for found in details.items.values() for row in found)]
        if row.status is StepState.WAITING
    ]
    for row in waiting[:3]:
        for command in Wait.of_step(row).commands():
            note(f"to go on: {command}")
    if not is_orphan and (queued := await queued_note(records.peers, run)) is not None:
        note(queued)
    if is_orphan:
        note(f"the process that drove it has ended: swarm runs resume {run.id}")


def choose_step(details: RunDetails, step_id: str, item: int | None) -> StepRecord:
    """The row of a step, or of one of its items.

    Raises:
        NotFoundError: there is none.
    """
    step = next((row for row in details.steps if row.step_id == step_id), None)
    if step is None:
        names = [row.step_id for row in details.steps]
        raise NotFoundError(
            f"run {details.run.id} has no step {step_id}", name=step_id, known=names,
            remedy=f"its steps: {', '.join(names)}",
        )  # fmt: skip
    if item is None:
        return step
    for row in details.items.get(step_id, ()):
        if row.item_index == item:
            return row
    count = "no items" if step.item_count is None else f"{step.item_count:,} items"
    raise NotFoundError(
        f"the item {item} of the step {step_id} has not begun; the step has {count}",
        remedy=f"`swarm runs show {details.run.id} --items` lists them",
    )


async def _show_step(
    options: Globals, details: RunDetails, values: Values, step: StepRecord
) -> None:
    inputs, outputs = await values.loaded(step.inputs), await values.loaded(step.outputs)
    attempts = details.attempts(step)
    if options.json:
        document = {
            **step_document(step, details),
            "inputs": inputs,
            "outputs": outputs,
            "invocations": [invocation_document(one) for one in attempts],
        }
        if step.item_count is not None:
            rows = details.items.get(step.step_id, ())
            document["item_steps"] = [
                {**step_document(row, details), "item": row.item_index} for row in rows
            ]
        print_json({"run_id": details.run.id, **document})
        return
    terminal = stdout()
    place = step.step_id if step.item_index == NO_ITEM else f"{step.step_id}[{step.item_index}]"
    status = terminal.style(str(step.status), STATE_COLORS.get(step.status), bold=True)
    took: float | None = step.duration_ms
    if took is None:
        took = elapsed_ms(step.started_at, step.completed_at)
    pairs = [
        ("run", details.run.id),
        ("agent", f"{step.agent_name}@{step.agent_version}" if step.agent_name else ""),
        ("called run", step.child_run_id or ""),
        ("waits for", str(Wait.of_step(step)) if step.status is StepState.WAITING else ""),
        ("result of", step.reused_from or ""),
        ("started", local_time(step.started_at)),
        ("took", duration(took)),
        ("error", f"{step.error} ({step.error_code})" if step.error else ""),
    ]
    print_lines([f"{terminal.style(clean(place), bold=True)}  {status}", ""])
    print_lines(facts(terminal, pairs))
    if attempts:
        print_lines(["", *attempt_table(terminal, attempts)])
    if step.item_count is not None:
        print_lines(["", *item_table(terminal, step, details)])
    for title, value in (("INPUTS", inputs), ("OUTPUTS", outputs)):
        if value:
            print_lines(["", terminal.style(title, bold=True)])
            show_values(terminal, value if isinstance(value, dict) else {"items": value})
