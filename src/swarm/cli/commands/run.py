"""``swarm run``"""

from __future__ import annotations

import click

from swarm.bootstrap.assembly import Swarm
from swarm.bootstrap.tidying import tidying
from swarm.cli.arguments import WORKFLOW
from swarm.cli.context import asynchronous
from swarm.cli.driving import follow_runs, resume_orphans_elsewhere
from swarm.cli.inputs import GivenInputs, add_pairs, read_input, take_paths
from swarm.cli.isolation import isolation_option, warn_unisolated
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.pairs import parse_pairs
from swarm.cli.queued import queued_note
from swarm.cli.session import session
from swarm.cli.viewing import Viewing, viewing_options
from swarm.definitions.loading import workflow_from_json
from swarm.engine.api import RunRequest
from swarm.kernel.clock import now_text
from swarm.kernel.errors import ExitCode
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunRecord, WorkflowRecord


@click.command("run", cls=SwarmCommand)
@click.argument("workflow", type=WORKFLOW)
@click.argument("input_json", required=False, metavar="[INPUT]")
@click.option("-i", "--input", "pairs", multiple=True, metavar="NAME=VALUE", help="One input.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    help="A label to find the run by; may be given several times.",
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Start one run only, however often the command is given with this key; the other times "
    "show that run.",
)
@click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    metavar="N",
    help="Before runs of a lower one, from -100 to 100; else the workflow's own.",
)
@isolation_option
@viewing_options
@pass_globals
@asynchronous
async def run(
    options: Globals,
    workflow: str,
    input_json: str | None,
    pairs: tuple[str, ...],
    labels: tuple[str, ...],
    idempotency_key: str | None,
    priority: int | None,
    isolation: str,
    detach: bool,
    viewing: Viewing,
) -> int:
    """Run a workflow and show its progress.

    WORKFLOW is `name` or `name@version`. INPUT is a JSON object, @FILE, or - for standard input.
    An input declared as file or directory takes a local path.

    The result goes to standard output, everything else to standard error. Ctrl-C cancels the run
    with clean-up; a second one leaves it to be resumed. A step that waits is shown with what it
    waits for, and how to answer it from another terminal.
    """
    level = Isolation(isolation)
    begun = now_text()
    named = parse_pairs(labels, "--label")
    async with session(options, "run") as swarm, tidying(swarm):
        values = read_input(input_json, swarm.settings.max_input_bytes)
        record = await swarm.workflows.resolve(workflow)
        given = await _inputs(swarm, record, values, pairs)
        orphans = await swarm.runs.orphans()
        created = await swarm.runs.create(
            RunRequest(
                f"{record.name}@{record.version}",
                given.values,
                given.mounts,
                level,
                idempotency_key=idempotency_key,
                labels=named,
                priority=priority,
            )
        )
        if created.created_at < begun:
            note(f"run {created.id} was started with this key before")
        else:
            warn_unisolated(level)
        if detach:
            await start_detached(swarm, created, options)
            return ExitCode.OK
        await swarm.runs.start(created.id)
        await resume_orphans_elsewhere(swarm, orphans)
        return await follow_runs(swarm, [created], viewing)


async def _inputs(
    swarm: Swarm, record: WorkflowRecord, values: dict[str, object], pairs: tuple[str, ...]
) -> GivenInputs:
    fields = workflow_from_json(record.definition).inputs
    return await take_paths(add_pairs(values, pairs, fields), fields, swarm.artifacts)


async def start_detached(swarm: Swarm, run_: RunRecord, options: Globals) -> None:
    """Hand the run to a host that outlives this process, and print its id."""
    await swarm.runs.start_detached(run_)
    if (queued := await queued_note(swarm.peers, await swarm.runs.get(run_.id))) is not None:
        note(queued)
    if options.json:
        print_json({"id": run_.id, "workflow": run_.workflow_name, "status": "pending"})
    else:
        print_lines([run_.id])
        note(f"follow it with: swarm runs logs --follow {run_.id}")
