"""The interpreters that dependencies are installed for."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from swarm.kernel.errors import UnavailableError
from swarm.kernel.settings import Settings

PROBE_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A program and its version, as numbers with dots."""

    program: Path
    version: str


def python_program() -> Interpreter:
    """The base interpreter of this process: not a virtual environment's."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return Interpreter(Path(base).resolve(), platform.python_version())


def find_node(settings: Settings) -> Interpreter:
    """The host's Node.

    Raises:
        UnavailableError: there is none that works.
    """
    del settings
    found = shutil.which("node")
    if found is not None:
        answer = subprocess.run(
            [found, "--version"],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
        if answer.returncode == 0:
            program = Path(os.path.realpath(found))
            return Interpreter(program, answer.stdout.strip().removeprefix("v"))
    raise UnavailableError("there is no Node", remedy="install Node 20 or newer")
