"""A home whose processes can be killed: commands, the journal, and the ledger of side effects."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.recovery.kills import nursery
from tests.recovery.kills.journal import Journal

DEADLINE_SECONDS = 90
_RUN_ID = re.compile(r"run_[0-9a-f]{32}")


@dataclass(frozen=True)
class Effect:
    """One line that an agent had written outside, in the order of arrival."""

    word: str
    """``begin`` or ``end``."""
    key: str
    attempt: int


class Recorder:
    """The world outside: agents that are not isolated connect and have their lines recorded."""

    def __init__(self, address: Path) -> None:
        self.lines: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(address))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._stop, self._stopped = os.pipe()
        self._thread.start()

    def close(self) -> None:
        os.close(self._stopped)
        self._thread.join()
        os.close(self._stop)
        self._listener.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj == self._stop:
                        return
                    if key.fileobj is self._listener:
                        selector.register(self._listener.accept()[0], selectors.EVENT_READ)
                    elif isinstance(key.fileobj, socket.socket):
                        self._read(key.fileobj, selector)

    def _read(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        with suppress(ConnectionError):
            if line := connection.recv(4096):
                self.lines.append(line.decode())
                connection.send(b"done")
                return
        selector.unregister(connection)
        connection.close()


class Nursery:
    """Starts commands that share an environment; see ``nursery``."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, nursery.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: list[object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@dataclass(frozen=True)
class Surroundings:
    """Where a command is started, if not where this runs."""

    network: str = ""
    """The path of a network namespace."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the environment, besides the home's."""


@dataclass
class Process:
    """A command that was started."""

    pid: int
    kind: str
    output: Path
    pidfd: int

    @property
    def has_ended(self) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self.pidfd, selectors.EVENT_READ)
            return bool(selector.select(0))


HERE = Surroundings()


class Home:
    """One Swarm home. Its commands run in processes of their own."""

    def __init__(self, root: Path, **settings: str) -> None:
        self.root = root / "home"
        self._outputs = root / "outputs"
        self._outputs.mkdir(parents=True)
        self._short = tempfile.TemporaryDirectory(prefix="ledger-")  # an address has 107 bytes
        self.ledger = Path(self._short.name) / "ledger"
        self._recorder = Recorder(self.ledger)
        path = os.pathsep.join(filter(None, sys.path))
        self._environment = {
            **os.environ,
            "SWARM_HOME": str(self.root),
            "PYTHONPATH": path,
            **settings,
        }
        self._nursery = Nursery(self._environment)
        self._started = 0

    @property
    def journal(self) -> Journal:
        """Where its records are."""
        return self.root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._nursery.close()
        self._recorder.close()
        self._short.cleanup()

    # -- commands --------------------------------------------------------------------------------

    def start(self, kind: str, *arguments: str, at: Surroundings = HERE) -> Process:
        self._started += 1
        output = self._outputs / f"{self._started:05}-{kind}"
        output.touch()
        place = [at.network, dict(at.variables)]
        pid = self._nursery.ask(["start", str(output), place, *arguments])
        return Process(pid, kind, output, os.pidfd_open(pid))

    def collect(self, process: Process) -> int:
        """Wait for a process; returns its exit code, or the negative signal."""
        os.close(process.pidfd)
        return self._nursery.ask(["collect", process.pid])

    def run(self, *arguments: str) -> str:
        """Run a command to its end, which must be good; returns what it printed."""
        process = self.start("command", *arguments)
        code = self.collect(process)
        text = process.output.read_text()
        assert code == 0, f"swarm {' '.join(arguments)} ended with {code}:\n{text}"
        return text

    def accepted(self) -> set[str]:
        """The runs whose id was printed by any command."""
        return set().union(*(printed(output) for output in self._outputs.iterdir()))

    def crashes(self) -> list[str]:
        """What any command reported as unexpected."""
        reports = (self.root / "registry/logs").glob("crash-*.txt")
        return [report.read_text() for report in reports]

    # -- what is there ---------------------------------------------------------------------------

    def hosts(self) -> list[int]:
        """The processes that drive runs, as their lock files name them."""
        found = []
        for file in (self.root / "run" / "hosts").glob("*.lock"):
            with suppress(FileNotFoundError, json.JSONDecodeError):
                pid = int(json.loads(file.read_text())["pid"])
                if self.owns(pid):
                    found.append(pid)
        return found

    def processes(self) -> list[int]:
        """Every process of this home that has the home's name in its environment."""
        own = (os.getpid(), self._nursery.pid)
        numbers = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]
        return [pid for pid in numbers if pid not in own and self.owns(pid)]

    def owns(self, pid: int) -> bool:
        try:
            return os.fsencode(self.root) in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def effects(self) -> dict[str, list[Effect]]:
        """What the agents told the world, by run: by their ledger or, in a sandbox, their log."""
        found: dict[str, list[Effect]] = defaultdict(list)
        for line in [*self._recorder.lines, *self._logged()]:
            _, word, key, attempt, _ = line.split()
            found[key.partition(":")[0]].append(Effect(word, key, int(attempt)))
        return found

    def _logged(self) -> list[str]:
        found = []
        for file in sorted(self.root.parent.glob("home*/registry/logs/workflow-runs/run_*.jsonl")):
            for line in file.read_bytes().splitlines():
                with suppress(json.JSONDecodeError):  # cut short by a kill
                    message = str(json.loads(line)["message"])
                    if message.startswith("ledger "):
                        found.append(message)
        return found


def printed(output: Path) -> set[str]:
    """The runs that a command's output names."""
    return set(_RUN_ID.findall(output.read_text(errors="replace")))


def wait_until(reached: Callable[[], bool], what: str) -> None:
    """Wait for a condition. Raises AssertionError after DEADLINE_SECONDS."""
    ends = time.monotonic() + DEADLINE_SECONDS
    while not reached():
        assert time.monotonic() < ends, what
        time.sleep(0.05)
