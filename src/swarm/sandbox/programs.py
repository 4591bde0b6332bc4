"""Which of the host's programs a sandbox sees: those below ``/usr``, and the interpreters."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.settings import Settings
from swarm.sandbox.interpreters import find_node, python_program

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a sandbox looks for programs first."""
_SHOWN: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib64")


def find_visible(name: str, settings: Settings) -> Path | None:
    """The program called ``name`` that a sandbox on this host would start, or None.

    A link below ``/usr`` that leads elsewhere, as packages below ``/opt`` install them, leads to
    nothing in a sandbox.
    """
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is not None:
        real = Path(os.path.realpath(found))
        if any(real.is_relative_to(folder) for folder in _SHOWN):
            return Path(found)
    python = python_program()
    if python.prefix is not None:
        beside = shutil.which(name, path=str(python.program.parent))
        if beside is not None and Path(os.path.realpath(beside)).is_relative_to(python.prefix):
            return Path(beside)
    if name == "node":
        try:
            return find_node(settings).program
        except SandboxUnavailable:
            return None
    return None
