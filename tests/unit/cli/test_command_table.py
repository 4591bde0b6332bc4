"""The table of commands agrees with the commands, and the top level stays light."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping

import click
import pytest
from click.shell_completion import ShellComplete

from swarm.cli.lazy import Entry, resolve
from swarm.cli.main import root
from swarm.cli.options import SwarmCommand
from swarm.cli.reference import markdown
from swarm.cli.table import ROOT

HEAVY = {"asyncio", "pydantic", "rich", "yaml", "minijinja", "jsonschema_rs", "sqlite3"}


def commands(table: Mapping[str, Entry], prefix: str = "") -> Iterator[tuple[str, Entry]]:
    for name, entry in table.items():
        path = f"{prefix}{name}"
        if entry.target is None:
            yield from commands(entry.commands, f"{path} ")
        else:
            yield path, entry


ALL = dict(commands(ROOT))


@pytest.mark.parametrize("path", ALL)
def test_a_line_of_the_table_leads_to_its_command(path: str) -> None:
    entry = ALL[path]
    command = resolve(path.rpartition(" ")[2], entry)
    assert isinstance(command, SwarmCommand)
    assert command.name == path.rpartition(" ")[2]
    first_words = entry.help.replace(".", "").split()[:2]
    assert (command.help or "").replace(".", "").split()[:2] == first_words
    assert {"home", "json"} <= {parameter.name for parameter in command.params}


def imported(*arguments: str) -> set[str]:
    code = (
        "import sys; from swarm.cli.errors import execute; from swarm.cli.main import root\n"
        f"execute(root(), 'swarm', {list(arguments)!r})\n"
        "print(' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["agent", "--help"], ["runs", "-h"], ["--version"]]
)
def test_help_loads_no_command_and_nothing_heavy(arguments: list[str]) -> None:
    modules = imported(*arguments)
    assert not HEAVY & modules
    assert not {name for name in modules if name.startswith("swarm.cli.commands.")}


def test_completion_of_commands_needs_only_the_table() -> None:
    complete = ShellComplete(root(), {}, "swarm", "_SWARM_COMPLETE")
    found = {item.value for item in complete.get_completions([], "r")}
    assert found == {"run", "runs"}
    found = {item.value for item in complete.get_completions(["agent"], "")}
    assert found == set(ROOT["agent"].commands)
    assert {item.value for item in complete.get_completions(["agent"], "--h")} == {
        "--home",
        "--help",
    }


def test_the_reference_tells_of_every_command() -> None:
    text = markdown()
    for path in ALL:
        assert f"\n## swarm {path}\n" in text
    assert "`--isolation [none|sandbox|microvm]`" in text.replace("\\|", "|")
    assert "\b" not in text


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    context = click.Context(root(), info_name="swarm")
    with pytest.raises(click.UsageError, match="Did you mean agent"):
        root().resolve_command(context, ["agnt"])
