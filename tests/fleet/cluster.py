"""Swarm processes that share a database, each with what can befall it: killed, paused, cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.commands.forked import forker
from tests.conftest import stop_workers
from tests.fleet.network import Machine

DEADLINE_SECONDS = 120.0


class SwarmProcess:
    """A command of Swarm that goes on until it is stopped."""

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        output: Path,
        machine: Machine | None,
    ) -> None:
        self.machine = machine
        self.output = output
        prefix = machine.command if machine is not None else ()
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                ("setpriv", "--pdeathsig", "KILL", *prefix, *command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def until(self, word: str) -> None:
        """Wait until it has printed a word."""
        wait_until(lambda: word in self.text() or self._process.poll() is not None, self.text)
        assert word in self.text(), self.text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        """SIGTERM; gives its exit code."""
        self._process.terminate()
        return self._process.wait(DEADLINE_SECONDS)

    def wait(self) -> int:
        return self._process.wait(DEADLINE_SECONDS)

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()


class Cluster:
    """Processes of Swarm over one database: the SQLite file of a home, or a PostgreSQL."""

    def __init__(
        self,
        folder: Path,
        url: str | None = None,
        machine_url: str | None = None,
        source: Path | None = None,
        **settings: str,
    ) -> None:
        """
        Args:
            folder: where the home lies, and what the processes print.
            url: the database, as it is reached from here; None for the home's own.
            machine_url: the same, as it is reached from the machines.
            source: where the package `swarm` that they run lies, if not the one under test.
            settings: variables of the environment.
        """
        self.home = folder / "home"
        self.url = url
        self._machine_url = machine_url
        self._folder = folder
        self._source = source
        self._settings = settings
        self.processes: list[SwarmProcess] = []

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes:
            process.close()
        stop_workers(self.home)

    def worker(self, *options: str, machine: Machine | None = None) -> SwarmProcess:
        """Start a worker and wait until it is ready."""
        process = self.start("worker", *options, machine=machine)
        process.until("ready")
        return process

    def start(self, *arguments: str, machine: Machine | None = None) -> SwarmProcess:
        """Start a command that is not waited for."""
        output = self._folder / f"output-{len(self.processes)}"
        command = (sys.executable, "-P", "-m", "swarm", *arguments)
        process = SwarmProcess(command, self._environment(machine), output, machine)
        self.processes.append(process)
        return process

    def run(self, *arguments: str) -> str:
        """Run a command to its end, which must be good; gives its standard output."""
        return self._run(*arguments).stdout.decode()

    def run_all(self, *arguments: str) -> str:
        """As :meth:`run`, with what it printed on standard error."""
        result = self._run(*arguments)
        return (result.stdout + result.stderr).decode()

    def tell(self) -> str:
        """What all processes have printed."""
        return "\n".join(process.text() for process in self.processes)

    def fail(self, *arguments: str) -> str:
        """Run a command that must fail; gives what it printed."""
        result = self._execute(arguments)
        assert result.returncode != 0, result.stdout.decode()
        return (result.stdout + result.stderr).decode()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        result = self._execute(arguments)
        assert result.returncode == 0, (result.stdout + result.stderr).decode()
        return result

    def _execute(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
        environment = self._environment(None)
        if self._source is None:
            return forker().run(arguments, b"", None, environment, DEADLINE_SECONDS)
        command = (sys.executable, "-P", "-m", "swarm", *arguments)
        return subprocess.run(
            command, check=False, capture_output=True, env=environment, timeout=DEADLINE_SECONDS
        )

    def read(self, *arguments: str) -> Any:
        """What a command says with --json."""
        return json.loads(self.run(*arguments, "--json"))

    def _environment(self, machine: Machine | None) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("SWARM_")}
        kept |= {
            "SWARM_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self._source or ""), *sys.path))),
        }
        url = self.url if machine is None else self._machine_url
        if url is not None:
            kept["SWARM_DATABASE_URL"] = url
        return kept | self._settings


def wait_until(reached: Callable[[], bool], what: str | Callable[[], str]) -> float:
    """Wait for a condition; gives the seconds that it took.

    Raises:
        AssertionError: it was not reached within DEADLINE_SECONDS.
    """
    begun = time.monotonic()
    while not reached():
        waited = time.monotonic() - begun
        assert waited < DEADLINE_SECONDS, what if isinstance(what, str) else what()
        time.sleep(0.02)
    return time.monotonic() - begun


def is_stopped(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return "State:\tT" in Path(f"/proc/{pid}/status").read_text()
    return False
