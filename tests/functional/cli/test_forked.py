"""That a command which is forked does what one does that is started anew."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.commands.forked import forker
from tests.functional.cli.conftest import Cli


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("settings", "--json"), 0), (("secret", "set", "TOKEN"), 2), (("runs", "show", "x"), 3)],
)
def test_a_forked_command_ends_as_one_that_is_started_anew(
    cli: Cli, arguments: tuple[str, ...], code: int
) -> None:
    anew = replace(cli, program=(sys.executable, "-s", "-P", "-m", "swarm"))
    given = b"x" * 70_000  # more than a pipe holds
    forked = cli(*arguments, stdin=given, SWARM_RETENTION_DAYS="3")
    assert forked.code == code
    assert forked == anew(*arguments, stdin=given, SWARM_RETENTION_DAYS="3")


def test_a_forked_command_that_takes_too_long_is_killed(cli: Cli) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        forker().run(["worker"], b"", None, cli.environment(), 0.5)
    assert cli.ok("status", "--json").json["hosts"] == []
