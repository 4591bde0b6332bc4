"""``swarm agent run``: one call of one agent, outside any workflow."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from swarm.bootstrap.retention import run_files
from swarm.cli.arguments import AGENT
from swarm.cli.context import asynchronous
from swarm.cli.files import keep_files
from swarm.cli.inputs import add_pairs, read_input, take_paths
from swarm.cli.isolation import isolation_option, warn_unisolated
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json
from swarm.cli.render.results import show_result
from swarm.cli.render.values import duration
from swarm.cli.run_documents import file_document
from swarm.cli.session import session
from swarm.cli.signals import cancelled_by_signals
from swarm.cli.terminal import clean, stderr, stdout
from swarm.definitions.loading import agent_from_json
from swarm.engine.invocations import GuestListener
from swarm.engine.remedies import failure_remedy
from swarm.kernel.errors import ExitCode
from swarm.kernel.json import JsonValue, dumps
from swarm.sandbox.ports import InvocationResult, Isolation, Outcome
from swarm.store.records import InvocationRecord


class _Console(GuestListener):
    """Prints on standard error what the agent tells while it runs."""

    def logged(self, stream: str, level: str, message: str) -> None:
        terminal = stderr()
        label = terminal.style(f"{level if stream == 'log' else stream}:", "dim")
        terminal.line(f"{label} {clean(message)}")
        terminal.flush()

    def progressed(self, fraction: float | None, message: str) -> None:
        share = "" if fraction is None else f"{fraction:.0%} "
        note(f"progress: {share}{clean(message)}")

    def streamed(self, value: JsonValue) -> None:
        note(f"event: {clean(dumps(value))}")


@click.command("run", cls=SwarmCommand)
@click.argument("agent", type=AGENT)
@click.argument("input_json", required=False, metavar="[INPUT]")
@click.option("-i", "--input", "pairs", multiple=True, metavar="NAME=VALUE", help="One input.")
@isolation_option
@click.option("--quiet", is_flag=True, help="Do not print what the agent logs.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files it gives; by default one below the home.",
)
@pass_globals
@asynchronous
async def run(
    options: Globals,
    agent: str,
    input_json: str | None,
    pairs: tuple[str, ...],
    isolation: str,
    quiet: bool,
    save: Path | None,
) -> int:
    """Call one agent, outside any workflow.

    AGENT is `name` or `name@version`. INPUT is a JSON object, @FILE, or - for standard input. An
    input declared as file or directory takes a local path.
    """
    level = Isolation(isolation)
    async with session(options, "invoke") as swarm:
        values = read_input(input_json, swarm.settings.max_input_bytes)
        record = await swarm.agents.resolve(agent)
        fields = agent_from_json(record.definition).inputs
        given = await take_paths(add_pairs(values, pairs, fields), fields, swarm.artifacts)
        warn_unisolated(level)
        with cancelled_by_signals():
            try:
                invocation, result = await swarm.invoker.invoke(
                    f"{record.name}@{record.version}",
                    given.values,
                    listener=GuestListener() if quiet else _Console(),
                    mounts=given.mounts,
                    isolation=level,
                )
            except asyncio.CancelledError:
                note("interrupted: the sandbox is gone")
                return ExitCode.INTERRUPTED
        outputs = result.outputs if result.outcome is Outcome.OK else {}
        kept = await keep_files(
            outputs,
            swarm.artifacts,
            swarm.home,
            save or run_files(swarm.home, invocation.id),
            replace=save is not None,
        )
    if options.json:
        print_json({**_document(invocation, result), "files": [file_document(f) for f in kept]})
    elif result.outcome is Outcome.OK:
        show_result(stdout(), outputs, kept)
    if result.outcome is not Outcome.OK:
        _show_failure(result)
        return ExitCode.FAILED
    return ExitCode.OK


def _document(invocation: InvocationRecord, result: InvocationResult) -> dict[str, JsonValue]:
    return {
        "id": invocation.id,
        "agent": f"{invocation.agent_name}@{invocation.agent_version}",
        "status": invocation.status,
        "outputs": result.outputs,
        "error": result.error,
        "error_code": result.error_code,
        "traceback": result.traceback,
        "remedy": failure_remedy(result.error, result.error_code),
        "isolation": str(invocation.isolation),
        "layers": list(invocation.layers),
        "wall_ms": invocation.wall_ms,
        "cpu_ms": invocation.cpu_ms,
        "peak_memory_bytes": invocation.peak_memory_bytes,
    }


def _show_failure(result: InvocationResult) -> None:
    terminal = stderr()
    head = terminal.style("error:", "red", bold=True)
    took = duration(result.usage.wall_ms)
    terminal.line(f"{head} {clean(result.error or str(result.outcome))} (after {took})")
    if result.traceback:
        for line in clean(result.traceback).rstrip("\n").splitlines():
            terminal.line(f"  {line}")
    if remedy := failure_remedy(result.error, result.error_code):
        terminal.line(f"  {terminal.style('remedy:', 'cyan')} {remedy}")
