"""The entry points ``swarm``, ``swarm-agent``, ``swarm-workflow`` and ``swarm-run``."""

from __future__ import annotations

import sys

import click

from swarm import __version__
from swarm.cli.errors import execute
from swarm.cli.lazy import Entry, LazyGroup, resolve
from swarm.cli.table import ROOT, RUN

ROOT_HELP = """Run AI agents, each call in a fresh sandbox, on their own or as workflows.

Exit codes: 0 ok, 1 failed, 2 usage or invalid, 3 not found, 4 refused, 5 environment,
130 interrupted.
"""


def root() -> LazyGroup:
    """The ``swarm`` command with everything below it."""
    group = LazyGroup("swarm", ROOT, help=ROOT_HELP)
    return click.version_option(__version__, prog_name="swarm", message="%(prog)s %(version)s")(
        group
    )


def main() -> None:
    """``swarm``"""
    _run("swarm", Entry("", commands=ROOT))


def agent_main() -> None:
    """``swarm-agent``: the verbs of ``swarm agent``."""
    _run("swarm-agent", ROOT["agent"])


def workflow_main() -> None:
    """``swarm-workflow``: the verbs of ``swarm workflow``."""
    _run("swarm-workflow", ROOT["workflow"])


def run_main() -> None:
    """``swarm-run``: the command ``swarm run``."""
    _run("swarm-run", RUN)


def _run(program: str, entry: Entry) -> None:
    command = root() if program == "swarm" else resolve(program, entry)
    sys.exit(execute(command, program, sys.argv[1:]))


if __name__ == "__main__":
    main()
