"""The control groups of a host, found by its pid, while others make and remove theirs."""

from __future__ import annotations

import os
from pathlib import Path


def groups(host: int) -> set[Path]:
    """The folders of a host's groups, in every hierarchy."""
    return {
        Path(folder, name)
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith(f"swarm-{host}-")
    }


def below(host: int) -> set[Path]:
    """The folders of the groups of its sandboxes."""
    return {
        Path(folder, name)
        for group in groups(host)
        for folder, names, _ in os.walk(group)
        for name in names
    }


def members(host: int) -> set[int]:
    """The processes in any of these."""
    found: set[int] = set()
    for group in groups(host) | below(host):
        try:
            found.update(map(int, (group / "cgroup.procs").read_text().split()))
        except OSError:
            continue  # The group was removed meanwhile.
    return found
