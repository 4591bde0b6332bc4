"""``swarm runs retry|fork|replay``: new runs out of what others have done."""

from __future__ import annotations

from collections.abc import Sequence

import click

from swarm.bootstrap.assembly import Swarm
from swarm.bootstrap.tidying import tidying
from swarm.cli.arguments import RUN, STEP
from swarm.cli.commands.run import start_detached
from swarm.cli.context import asynchronous
from swarm.cli.driving import follow_runs
from swarm.cli.inputs import add_pairs, read_input, take_paths
from swarm.cli.isolation import warn_unisolated
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.session import session
from swarm.cli.viewing import Viewing, viewing_options
from swarm.definitions.fields import FieldDefinition
from swarm.definitions.loading import agent_from_json, workflow_from_json
from swarm.definitions.workflow import WorkflowDefinition
from swarm.engine.api import ForkRequest
from swarm.kernel.errors import ExitCode, InputError, InvalidError, NotFoundError
from swarm.kernel.json import JsonObject, loads
from swarm.sandbox.ports import Isolation
from swarm.store.records import NO_ITEM, RunRecord, StepState

FROM = click.option(
    "--from",
    "from_steps",
    multiple=True,
    type=STEP,
    metavar="STEP",
    help="Run this step again, with all that depend on it, and take over the results of the "
    "others; may be given several times.",
)
LATEST = click.option(
    "--latest",
    is_flag=True,
    help="Use the workflow and the agents that are registered now, not those of the other run.",
)


@click.command("retry", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@FROM
@LATEST
@viewing_options
@pass_globals
@asynchronous
async def retry(
    options: Globals,
    run_id: str,
    from_steps: tuple[str, ...],
    latest: bool,
    detach: bool,
    viewing: Viewing,
) -> int:
    """Start a new run with the workflow and inputs of another.

    RUN is an id or the start of one. Unlike `resume`, every step is run again, with the agents that
    are registered now; with --from only some are, with the agents of the other run unless --latest
    is given.
    """
    async with session(options, "run") as swarm, tidying(swarm):
        if from_steps or latest:
            request = ForkRequest(run_id, from_steps=from_steps or None, latest=latest)
            created = await swarm.runs.fork(request)
        else:
            created = await swarm.runs.retry(run_id)
        return await _begin(swarm, created, detach, viewing, options)


@click.command("fork", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@FROM
@click.option(
    "-i", "--input", "pairs", multiple=True, metavar="NAME=VALUE", help="One changed input."
)
@click.option(
    "--inputs", "document", metavar="JSON", help="Changed inputs as a JSON object, @FILE, or -."
)
@click.option(
    "--set",
    "step_pairs",
    multiple=True,
    metavar="STEP.NAME=VALUE",
    help="One changed input of a step, which is run again; may be given several times.",
)
@LATEST
@viewing_options
@pass_globals
@asynchronous
async def fork(
    options: Globals,
    run_id: str,
    from_steps: tuple[str, ...],
    pairs: tuple[str, ...],
    document: str | None,
    step_pairs: tuple[str, ...],
    latest: bool,
    detach: bool,
    viewing: Viewing,
) -> int:
    """Start a run that repeats another with something changed.

    RUN is an id or the start of one. Without --from and --set every step is run. What is not given
    anew is as it was: the inputs, the workflow and the agents.
    """
    async with session(options, "run") as swarm, tidying(swarm):
        origin = await swarm.runs.get(run_id)
        definition = await _definition(swarm, origin)
        fields = definition.inputs
        values = read_input(document, swarm.settings.max_input_bytes)
        given = await take_paths(add_pairs(values, pairs, fields), fields, swarm.artifacts)
        if given.mounts:
            raise InputError(
                "another directory of this machine cannot be given to a fork",
                remedy=f"start a new run: swarm run {origin.workflow_name}",
            )
        request = ForkRequest(
            origin.id,
            from_steps=from_steps or None,
            inputs=given.values or None,
            step_inputs=await _step_inputs(swarm, origin, definition, step_pairs),
            latest=latest,
        )
        created = await swarm.runs.fork(request)
        return await _begin(swarm, created, detach, viewing, options)


@click.command("replay", cls=SwarmCommand)
@click.argument("run_id", type=RUN, metavar="RUN")
@click.option(
    "--pin",
    "pins",
    multiple=True,
    metavar="STEP[=JSON]",
    help="Do not run this step: give it the outputs that it had, or these; may be given several "
    "times. Without it every step that succeeded is pinned.",
)
@click.option(
    "--run",
    "run_steps",
    multiple=True,
    type=STEP,
    metavar="STEP",
    help="Run this step though it succeeded; may be given several times.",
)
@LATEST
@viewing_options
@pass_globals
@asynchronous
async def replay(
    options: Globals,
    run_id: str,
    pins: tuple[str, ...],
    run_steps: tuple[str, ...],
    latest: bool,
    detach: bool,
    viewing: Viewing,
) -> int:
    """Start a run in which some steps are not run, but have their outputs pinned.

    RUN is an id or the start of one. To try a mended agent on what it was given before:
    `swarm runs replay RUN --run STEP --latest`.
    """
    async with session(options, "run") as swarm, tidying(swarm):
        origin = await swarm.runs.get(run_id)
        pinned = _pinned(pins, swarm.settings.max_input_bytes)
        if not pins:
            pinned = await _succeeded(swarm, origin)
        known = [placed.step.id for placed in (await _definition(swarm, origin)).placed_steps()]
        for step in run_steps:
            if step not in known:
                raise NotFoundError(
                    f"the workflow has no step {step}", name=step, known=known,
                    remedy=f"its steps: {', '.join(known)}",
                )  # fmt: skip
            if pins and step in pinned:
                raise InvalidError(f"the step {step} is to be pinned and to be run")
            pinned.pop(step, None)
        created = await swarm.runs.fork(ForkRequest(origin.id, pinned=pinned, latest=latest))
        return await _begin(swarm, created, detach, viewing, options)


async def _begin(
    swarm: Swarm, created: RunRecord, detach: bool, viewing: Viewing, options: Globals
) -> int:
    warn_unisolated(Isolation(created.isolation))
    if detach:
        await start_detached(swarm, created, options)
        return ExitCode.OK
    await swarm.runs.start(created.id)
    return await follow_runs(swarm, [created], viewing)


async def _definition(swarm: Swarm, run: RunRecord) -> WorkflowDefinition:
    record = await swarm.store.get_workflow(run.workflow_id)
    if record is None:
        raise NotFoundError(f"the workflow of run {run.id} is gone")
    return workflow_from_json(record.definition)


async def _step_inputs(
    swarm: Swarm, origin: RunRecord, definition: WorkflowDefinition, pairs: Sequence[str]
) -> dict[str, JsonObject]:
    """``{step: {input: value}}`` of ``step.name=value`` texts, typed as the step's target says.

    Raises:
        InputError: one is not of that form, or its value is not of its type.
    """
    by_step: dict[str, list[str]] = {}
    for pair in pairs:
        step, dot, assignment = pair.partition(".")
        if not dot or "=" not in assignment or "=" in step:
            raise InputError(
                f"`{pair}` is not of the form step.name=value", remedy="write --set step.name=value"
            )
        by_step.setdefault(step, []).append(assignment)
    fields = {step: await _fields_of_step(swarm, origin, definition, step) for step in by_step}
    return {step: add_pairs({}, given, fields[step]) for step, given in by_step.items()}


async def _fields_of_step(
    swarm: Swarm, origin: RunRecord, definition: WorkflowDefinition, step_id: str
) -> tuple[FieldDefinition, ...]:
    """The declared inputs of what a step of the run calls; none if it is not known."""
    for placed in definition.placed_steps():
        if placed.step.id != step_id:
            continue
        agent_id = origin.agents.get(placed.step.agent or "")
        workflow_id = origin.workflows.get(placed.step.workflow or "")
        if agent_id and (agent := await swarm.store.get_agent(agent_id)):
            return agent_from_json(agent.definition).inputs
        if workflow_id and (workflow := await swarm.store.get_workflow(workflow_id)):
            return workflow_from_json(workflow.definition).inputs
    return ()


def _pinned(pins: Sequence[str], max_bytes: int) -> dict[str, JsonObject | None]:
    """``{step: outputs}`` of ``step`` and ``step=JSON`` texts; None for those that it had.

    Raises:
        InputError: not a JSON object, too large, or given twice.
    """
    pinned: dict[str, JsonObject | None] = {}
    for pin in pins:
        step, given, text = pin.partition("=")
        if step in pinned:
            raise InputError(f"the step {step} is pinned twice", remedy="pin it once")
        outputs = None
        if given:
            try:
                outputs = loads(text.encode(errors="surrogateescape"))
            except InvalidError as error:
                raise InputError(error.message, where=f"--pin {step}") from None
            if not isinstance(outputs, dict) or len(text) > max_bytes:
                raise InputError(
                    f"the outputs of a step are a JSON object of at most {max_bytes:,} bytes",
                    where=f"--pin {step}",
                )
        pinned[step] = outputs
    return pinned


async def _succeeded(swarm: Swarm, origin: RunRecord) -> dict[str, JsonObject | None]:
    """The steps of the DAG that succeeded, to be pinned to the outputs that they had."""
    placed = (await _definition(swarm, origin)).placed_steps()
    of_dag = {one.step.id for one in placed if one.actions is None}
    return {
        row.step_id: None
        for row in await swarm.store.list_steps(origin.id)
        if row.item_index == NO_ITEM and row.step_id in of_dag and row.status is StepState.SUCCEEDED
    }
