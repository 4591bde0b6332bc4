"""The table of commands agrees with the commands, and the top level stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from swarm.cli.lazy import Entry, resolve
from swarm.cli.main import root
from swarm.cli.options import SwarmCommand
from swarm.cli.reference import markdown
from swarm.cli.table import ROOT

HEAVY = {"asyncio", "pydantic", "rich", "yaml", "minijinja", "jsonschema_rs", "sqlite3"}
RECORD_COMMANDS = (
    "runs list",
    "runs waiting",
    "status",
    "secret list",
    "workflow list",
    "agent list",
    "db status",
    "settings",
)
HEAVY_FOR_RECORDS = HEAVY - {"asyncio", "sqlite3"} | {
    "cryptography",
    "h11",
    "hmac",
    "importlib.metadata",
    "packaging",
    "psycopg",
    "uv",
    "zipfile",
    "zoneinfo",
}


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


def imported(*commands: Sequence[str]) -> dict[str, str]:
    """The modules that are loaded after these commands, and the command that loaded each."""
    code = (
        "import sys; from swarm.cli.errors import execute; from swarm.cli.main import root\n"
        "found = {}\n"
        f"for command in {[list(command) for command in commands]!r}:\n"
        "    assert execute(root(), 'swarm', command) == 0, command\n"
        "    for name in sys.modules: found.setdefault(name, ' '.join(command))\n"
        "print(); print(found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, told = done.stdout.splitlines()
    assert any(shown)
    found: dict[str, str] = ast.literal_eval(told)
    return found


@pytest.mark.parametrize(
    "arguments", [["--help"], ["agent", "--help"], ["runs", "-h"], ["--version"]]
)
def test_help_loads_no_command_and_nothing_heavy(arguments: list[str]) -> None:
    modules = imported(arguments)
    assert not HEAVY & modules.keys()
    assert not {name for name in modules if name.startswith("swarm.cli.commands.")}


def test_commands_that_show_records_load_no_definitions_and_nothing_else_heavy(
    tmp_path: Path,
) -> None:
    commands = [["--home", str(tmp_path / "home"), *words.split()] for words in RECORD_COMMANDS]
    modules = imported(*commands)
    assert modules["sqlite3"], "they have not read any records"
    heavy = {
        name: command
        for name, command in modules.items()
        if name in HEAVY_FOR_RECORDS
        or name.startswith(("swarm.expressions.", "swarm.sandbox.", "swarm.vault."))
    }
    assert heavy == {}


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
