"""Removes what lies under digests that nobody refers to any more."""

from __future__ import annotations

import re
import shutil
from collections.abc import Container
from pathlib import Path

from swarm.packages.locks import exclusive, run_to_end

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LEFT = re.compile(r"\.(?:partial|damaged|removed|arriving)-([0-9a-f]{64})")
"""What a process that was killed left behind, and the digest whose lock guards it."""


async def remove_unused(root: Path, in_use: Container[str], before: float) -> int:
    """Remove the folders ``root/<digest>`` not in use and not touched since, and leftovers.

    Safe while others install: each folder is looked at again under the lock of its digest, and
    whoever finds it there and means to use it touches it under that lock.

    Args:
        root: ``packages`` or ``environments`` of a home.
        in_use: digests to keep.
        before: seconds since the epoch.

    Returns:
        How many were removed, leftovers not counted.
    """
    count = 0
    for path in sorted(root.iterdir()):
        left = _LEFT.fullmatch(path.name)
        if left is None and (not _DIGEST.fullmatch(path.name) or path.name in in_use):
            continue
        digest = path.name if left is None else left[1]
        async with exclusive(root / ".locks" / digest):
            count += await run_to_end(_remove, path, before) and left is None
    return count


def _remove(path: Path, before: float) -> bool:
    try:
        if path.stat().st_mtime >= before:
            return False
    except FileNotFoundError:  # somebody else was faster
        return False
    if path.is_file():
        path.unlink()
        return True
    # Renamed first, so that a kill in the middle leaves nothing that looks whole.
    removed = path.with_name(f".removed-{path.name[-64:]}")
    shutil.rmtree(removed, ignore_errors=True)
    path.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
    return True
