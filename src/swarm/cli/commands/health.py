"""``swarm health``"""

from __future__ import annotations

import click

from swarm.cli.context import read_settings
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines
from swarm.dispatch.health import Probe, ask
from swarm.kernel.errors import ExitCode, InvalidError


@click.command("health", cls=SwarmCommand)
@click.option("--live", is_flag=True, help="Ask only whether the worker lives.")
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@pass_globals
def health(options: Globals, live: bool, seconds: float) -> int:
    """Ask the worker that listens at `SWARM_HEALTH_SOCKET` whether it takes runs.

    For probes of containers and service managers. Exits with 5 if it is not ready (or, with --live,
    does not answer).
    """
    path = read_settings(options).health_socket
    if path is None:
        raise InvalidError(
            "no worker can be asked: the setting health_socket is not set",
            remedy="set SWARM_HEALTH_SOCKET to the same path for the worker and for this command",
        )
    answer = ask(path.expanduser(), Probe.LIVE if live else Probe.READY, seconds)
    if options.json:
        print_json(answer)
    else:
        reason = answer.get("reason")
        print_lines([f"{answer.get('state')}, {answer.get('runs')} runs"])
        if reason is not None:
            print_lines([f"not ready: {reason}"])
    return ExitCode.OK if answer.get("ok") is True else ExitCode.ENVIRONMENT
