"""Random secrets, given away in every way an agent has, are searched for in everything there is.

``telltale/main.py`` has the ways; ``SURFACES`` has what shows a run afterwards. A command that is
new, or a file that is written anew, is one more line here: all that is below the home is searched
in any case.
"""

from __future__ import annotations

import base64
import json
import os
import random
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from swarm.kernel.json import JsonObject
from swarm.vault.masking import MASK
from tests.functional.cli.conftest import Cli, Done, write_workflow
from tests.security.secrets.searching import Searcher, make_value
from tests.security.secrets.telltale import main as telltale

FOLDER = Path(__file__).parent
STORED = ("STORED", "OF_WORKFLOW", "OF_ORGANIZATION")
GIVEN = {"given": "${secrets.STORED}", "header": "Bearer ${secrets.OF_WORKFLOW}!"}

SHOWS_RUNS: dict[str, tuple[str, ...]] = {
    "events": ("run", "telling", "--events"),
    "logs of a run": ("run", "failing", "--logs"),
    "outputs of a run": ("run", "telling", "--json"),
    "progress of a run": ("run", "failing"),
    "a step that failed": ("run", "failing", "--json"),
    "a detached run": ("run", "failing", "--detach"),
    "a worker": ("worker", "--until-idle"),
    "agent run": ("agent", "run", "telltale", '{"act": "answer"}', "--json"),
    "agent run that logs": ("agent", "run", "telltale", '{"act": "log"}'),
    "agent run that fails": ("agent", "run", "telltale", '{"act": "fail_for_a_reason"}', "--json"),
    "agent run refused": ("agent", "run", "telltale", '{"act": "return_a_wrong_type"}'),
}
"""Commands that run the agent."""
SURFACES: dict[str, tuple[str, ...]] = {
    "runs list": ("runs", "list"),
    "runs list as JSON": ("runs", "list", "--json"),
    "runs show": ("runs", "show", "{run}"),
    "runs show as JSON": ("runs", "show", "{run}", "--json"),
    "a step": ("runs", "show", "{run}", "--step", "last"),
    "an item": ("runs", "show", "{run}", "--step", "each", "--item", "1", "--json"),
    "runs logs": ("runs", "logs", "{run}"),
    "runs logs as JSON": ("runs", "logs", "{run}", "--json"),
    "a run tried again": ("runs", "retry", "{failed}", "--json"),
    "workflow runs": ("workflow", "runs", "telling", "--json"),
    "workflow info": ("workflow", "info", "telling", "--json"),
    "workflow graph": ("workflow", "graph", "telling"),
    "agent info": ("agent", "info", "telltale", "--json"),
    "settings": ("settings", "--json"),
    "doctor": ("doctor", "--json"),
    "secret list": ("secret", "list", "--json"),
    "a secret that is not there": ("secret", "get", "STORE", "--json"),
    "a rotation": ("secret", "rotate", "--json"),
    "runs timeline": ("runs", "timeline", "{run}"),
    "runs timeline as SVG": ("runs", "timeline", "{run}", "--svg", "-"),
    "runs children": ("runs", "children", "{run}", "--json"),
    "runs export": ("runs", "export"),
    "a fork": ("runs", "fork", "{failed}", "--json"),
    "a replay": ("runs", "replay", "{failed}", "--json"),
    "db backup": ("db", "backup", "{home}/backup.db"),
    "db check": ("db", "check"),
    "a purge": ("runs", "purge", "--older-than", "1d"),
}
"""Commands that show what is recorded; ``{run}``, ``{failed}`` and ``{home}`` are filled in."""
TELL_NOTHING = {"return_no_object", "return_no_json", "return_too_much"}
"""Ways in which the error that comes of it quotes nothing."""
NAMES_NONE = {
    *("a detached run", "a worker", "runs list", "runs list as JSON", "workflow runs"),
    *("workflow info", "workflow graph", "agent info", "settings", "doctor", "secret list"),
    *("a secret that is not there", "a rotation", "a purge", "db backup"),
    *("db check", "runs timeline", "runs timeline as SVG", "runs children"),
}
"""Those in which nothing has to be blotted out, as they show nothing of what agents say."""


@dataclass
class World:
    """A home with secrets, the agent that tells them, and all that was printed there."""

    cli: Cli
    values: dict[str, str]
    master_key: bytes
    printed: dict[str, Done] = field(default_factory=dict)

    def do(self, name: str, *arguments: str, cli: Cli | None = None) -> Done:
        done = self.printed[name] = (cli or self.cli)(*arguments)
        return done


def step(name: str, way: str, **more: Any) -> JsonObject:
    return {"id": name, "agent": "telltale", "inputs": {**GIVEN, "act": way}, **more}


def telling() -> JsonObject:
    """A workflow that goes every way, and hands on what came of each."""
    steps = [step(way, way, on_error="continue") for way in telltale.WAYS]
    steps += [step("each", "answer", for_each=[1, 2], cache={"ttl_seconds": 3600})]
    last = step("last", "answer", cache={"ttl_seconds": 3600})
    last["inputs"]["more"] = {way: f"${{steps.{way}.error}}" for way in telltale.WAYS}
    last["inputs"]["more"]["told"] = "${steps.answer.outputs.told}"
    outputs = {"told": "${steps.last.outputs.told}", "file": "${steps.name_a_kind.outputs.file}"}
    return {"name": "telling", "version": "1.0.0", "steps": [*steps, last], "outputs": outputs}


def failing() -> JsonObject:
    """A workflow that fails, after a second attempt, and says why."""
    only = step("tell", "fail", retry={"attempts": 2, "delay_seconds": 0})
    notice = {"notify": {"type": "log", "message": "it is ${error.message}"}}
    return {"name": "failing", "version": "1.0.0", "steps": [only], "on_error": [notice]}


@pytest.fixture
def world(cli: Cli, tmp_path: Path, rng: random.Random) -> World:
    values = {name: make_value(rng) for name in (*STORED, "OF_ENVIRONMENT")}
    key = rng.randbytes(32)
    cli.variables |= {
        "SWARM_SECRET_OF_ENVIRONMENT": values["OF_ENVIRONMENT"],
        "SWARM_MASTER_KEY": base64.b64encode(key).decode(),
        "SWARM_MAX_LOG_LINE_BYTES": str(telltale.LINE_BYTES),
    }
    cli.ok("agent", "register", FOLDER / "telltale")
    for workflow in (telling(), failing()):
        folder = tmp_path / workflow["name"]
        cli.ok("workflow", "register", write_workflow(folder, json.dumps(workflow)))

    def put(name: str, *scope: str) -> None:
        cli.ok("secret", "set", name, *scope, stdin=values[name].encode())

    put("STORED")
    put("OF_ORGANIZATION", "--organization")
    put("OF_WORKFLOW")
    put("OF_WORKFLOW", "--workflow", "telling")
    return World(cli, values, key)


def run_everything(world: World) -> None:
    for name, arguments in SHOWS_RUNS.items():
        world.do(name, *arguments)
    given = {
        "home": str(world.cli.home),
        "run": world.printed["outputs of a run"].json["id"],
        "failed": world.printed["a step that failed"].json["id"],
    }
    for name, arguments in SURFACES.items():
        world.do(name, *(part.format(**given) if "{" in part else part for part in arguments))


def crash(world: World) -> None:
    """Have Swarm itself fail with a secret in hand, and leave a crash report."""
    environment = {**world.cli.variables, "SWARM_DEBUG": "1"}
    faulty = replace(
        world.cli, program=(sys.executable, str(FOLDER / "faulty.py")), variables=environment
    )
    done = world.do("a crash", "run", "failing", "--json", cli=faulty)
    assert done.code == 1, done.err
    assert "RuntimeError: not expected" in done.err
    (report,) = (world.cli.home / "registry" / "logs").glob("crash-*.txt")
    assert f"RuntimeError: not expected: {{'act': 'fail', 'given': '{MASK}'" in report.read_text()


def test_no_secret_is_in_anything_that_is_written_or_printed(world: World) -> None:
    run_everything(world)
    crash(world)
    failed = ("a step that failed", "logs of a run", "progress of a run", "agent run that fails")
    expected = dict.fromkeys(
        (*failed, "agent run refused", "a run tried again", "a fork", "a replay", "a crash"), 1
    )
    expected |= {"a secret that is not there": 3, "a rotation": 4}
    codes = {name: done.code for name, done in world.printed.items() if done.code}
    assert codes == expected, [world.printed[name].err for name in codes]

    searcher = Searcher(world.values)
    shown = {
        name: searcher.in_bytes((done.out + done.err).encode())
        for name, done in world.printed.items()
    }
    assert {name: told for name, told in shown.items() if told} == {}
    assert searcher.below(world.cli.home) == {}
    everything = b"".join(path.read_bytes() for path in files_below(world.cli.home))
    everything += "".join(done.out + done.err for done in world.printed.values()).encode()
    key = world.master_key
    assert not [
        one for one in (key, base64.b64encode(key), key.hex().encode()) if one in everything
    ]

    assert_every_way_was_gone(world)


def assert_every_way_was_gone(world: World) -> None:
    """That nothing was found says nothing unless each way was tried, and something blotted out."""
    events = [json.loads(line) for line in world.printed["events"].out.splitlines()]
    database = world.cli.home / "registry" / "registry.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT step_id, outputs, error FROM step_executions").fetchall()
    shown = {
        way: [event for event in events if event.get("step_id") == way]
        + [row for row in rows if row[0] == way]
        for way in telltale.WAYS
    }
    unmasked = {way for way, told in shown.items() if MASK not in json.dumps(told)}
    assert unmasked == TELL_NOTHING, {way: shown[way] for way in unmasked}
    showing = [name for name, done in world.printed.items() if MASK in done.out + done.err]
    assert set(showing) >= set(world.printed) - NAMES_NONE
    assert any(
        "cut]" in line and MASK in line for line in world.printed["runs logs"].out.split("\n")
    )


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and os.access(path, os.R_OK)]
