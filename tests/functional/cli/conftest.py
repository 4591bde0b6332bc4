"""The real `swarm` as a subprocess, with a home, on pipes or on a pseudo-terminal.

A command on pipes that is waited for is forked from a process that has imported everything; see
``tests/commands``. With SWARM_TEST_SCALE=full each is started anew, as are always those on a
terminal, those that are not waited for, and whatever the documentation shows.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.commands.forked import forker
from tests.conftest import SCALE, stop_workers

DEADLINE_SECONDS = 60
SWARM = (sys.executable, "-P", "-m", "swarm")
_AT_START = ("PYTHON", "LC_", "LANG")
"""Variables that begin so are read when Python starts."""

PROBE = """\
name: probe
version: 1.0.0
description: Does what it is told.
runtime: {type: python, entry: main.py, timeout_seconds: 60}
inputs:
  - {name: act, type: string, default: answer}
  - {name: gate, type: directory, required: false}
  - {name: after, type: object, required: false}
outputs:
  - {name: answer, type: string}
  - {name: report, type: file, required: false}
"""

PROBE_HANDLER = """\
import os
import sys
import time


def handler(inputs, context):
    act = inputs["act"]
    context.log.info(f"acting: {act} \\x1b[31mred")
    if act == "raise":
        raise ValueError("told to raise")
    if act == "undeclared":
        return {"answer": "x", "more": 1}
    if act == "junk":
        print("{junk that is no JSON")
        os.write(1, b"\\xff\\x00more junk")
    if act == "exit":
        sys.exit(3)
    if act == "hang":
        time.sleep(3600)
    if act == "wait":  # until the test opens the gate
        while not os.path.exists(os.path.join(inputs["gate"], "open")):
            context.progress(0.5, "at the gate")  # again and again: a follower may come late
            time.sleep(0.05)
    if act == "report":
        with open(os.path.join(os.environ["SWARM_OUTPUTS"], "report.md"), "w") as file:
            file.write("# The report\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n")
        return {"answer": act, "report": {"$file": "report.md", "media_type": "text/markdown"}}
    return {"answer": act}
"""

FLOW = """\
name: flow
version: 1.0.0
inputs:
  - {name: act, type: string, default: answer}
  - {name: gate, type: directory, required: false}
steps:
  - {id: first, agent: probe, inputs: {act: answer}}
  - id: second
    agent: probe
    inputs: {act: "${inputs.act}", gate: "${inputs.gate}", after: "${steps.first.outputs}"}
outputs:
  answer: "${steps.second.outputs.answer}"
"""

REPORTING = """\
name: reporting
version: 1.0.0
steps:
  - {id: only, agent: probe, inputs: {act: report}}
outputs:
  answer: "${steps.only.outputs.answer}"
  report: "${steps.only.outputs.report}"
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Cli:
    """Runs `swarm` with one home."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = SWARM

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if name not in _COLOURS},
            # Commands are started in other folders too.
            "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in _import_path()),
            "SWARM_HOME": str(self.home),
            **self.variables,
            **(variables or {}),
        }

    def __call__(
        self,
        *arguments: str | Path,
        stdin: bytes = b"",
        cwd: Path | None = None,
        **variables: str,
    ) -> Done:
        environment = self.environment(variables)
        words = list(map(str, arguments))
        if self._is_forked(variables):
            done = forker().run(words, stdin, cwd, environment, DEADLINE_SECONDS)
        else:
            done = subprocess.run(
                [*self.program, *words],
                input=stdin,
                cwd=cwd,
                env=environment,
                capture_output=True,
                timeout=DEADLINE_SECONDS,
                check=False,
            )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def _is_forked(self, variables: Mapping[str, str]) -> bool:
        """Whether a command need not be started anew to mean the same."""
        starts = any(name.startswith(_AT_START) for name in (*self.variables, *variables))
        return self.program == SWARM and SCALE != "full" and not starts

    def ok(self, *arguments: str | Path, **options: Any) -> Done:
        done = self(*arguments, **options)
        assert done.code == 0, done.err + done.out
        return done

    def count(self, table: str) -> int:
        """How many rows a table of the home's database has."""
        database = self.home / "registry" / "registry.db"
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)

    def until(self, run_id: str, state: str) -> None:
        """Wait until the run is in ``state``, looking where it is written: a command takes long."""
        database = self.home / "registry" / "registry.db"
        deadline = time.monotonic() + DEADLINE_SECONDS
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            while True:
                (now,) = connection.execute(
                    "SELECT status FROM workflow_runs WHERE id = ?", (run_id,)
                ).fetchone()
                if now == state:
                    return
                assert time.monotonic() < deadline, f"{run_id} is {now}, not {state}"

    def start(self, *arguments: str | Path, **variables: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.program, *map(str, arguments)],
            env=self.environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def on_terminal(self, *arguments: str | Path, **variables: str) -> OnTerminal:
        return OnTerminal([*self.program, *map(str, arguments)], self.environment(variables))


class OnTerminal:
    """A command on a pseudo-terminal of 100 columns and 30 rows."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.output = b""
        environment = {"TERM": "xterm-256color", **environment, "COLUMNS": "100", "LINES": "30"}
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            os.execvpe(command[0], command, environment)
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def until(self, wanted: bytes) -> None:
        """Read until the output holds ``wanted``."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while wanted not in self.output:
            assert time.monotonic() < deadline, self.output
            assert self._read(), self.output

    def press_interrupt(self) -> None:
        self.type(b"\x03")

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def end(self) -> int:
        """Read to the end; the exit code, 128 + n for signal n."""
        while self._read():
            pass
        os.close(self._descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return 128 - code if code < 0 else code

    def _read(self) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], DEADLINE_SECONDS)
        assert ready, self.output
        try:
            data = os.read(self._descriptor, 65_536)
        except OSError:  # EIO: the other side has closed
            return False
        self.output += data
        return bool(data)


Make = Callable[..., Path]
"""Writes an agent or a workflow below the test's folder."""

_COLOURS = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")


def _import_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def write_agent(folder: Path, manifest: str = PROBE, handler: str = PROBE_HANDLER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(manifest)
    (folder / "main.py").write_text(handler)
    return folder


def write_workflow(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workflow.yaml").write_text(text)
    return folder / "workflow.yaml"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """`swarm` with an empty home."""
    made = Cli(tmp_path / "home", {"SWARM_IDLE_SECONDS": "0.2"})
    yield made
    stop_workers(made.home)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """`swarm` with a home in which `probe`, `flow` and `reporting` are registered."""
    folder = tmp_path_factory.mktemp("shared")
    made = Cli(folder / "home", {"SWARM_IDLE_SECONDS": "0.2"})
    made.ok("agent", "register", write_agent(folder / "probe"))
    made.ok("workflow", "register", write_workflow(folder / "flow", FLOW))
    made.ok("workflow", "register", write_workflow(folder / "reporting", REPORTING))
    yield made
    stop_workers(made.home)


@pytest.fixture
def make_agent(tmp_path: Path) -> Callable[..., Path]:
    def make(manifest: str = PROBE, handler: str = PROBE_HANDLER, name: str = "agent") -> Path:
        return write_agent(tmp_path / name, manifest, handler)

    return make


@pytest.fixture
def make_workflow(tmp_path: Path) -> Callable[..., Path]:
    def make(text: str = FLOW, name: str = "workflow") -> Path:
        return write_workflow(tmp_path / name, text)

    return make
