"""Where the agents, workflows and templates that ship with Swarm lie."""

from __future__ import annotations

from pathlib import Path

import swarm


def catalog_root() -> Path:
    """The folder with ``agents/``, ``workflows/`` and ``templates/``, in a wheel or a checkout."""
    return Path(swarm.__file__).parent / "catalog"
