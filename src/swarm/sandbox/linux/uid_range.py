"""Which uids sandboxes may have when Swarm runs as root.

On a host, a range that no distribution, container manager or systemd hands out (0x70000000 to
0x7FFFFFFF; ``systemd.io/UIDS-GIDS``). In a container that maps fewer ids, the upper part of what it
has. Where root has but a handful of ids, it can only do as an ordinary user does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BLOCK: Final = 1024
"""Uids that one zygote holds, and so the most sandboxes that it may have at once."""
_FIRST: Final = 0x70000000
_LAST: Final = 0x7FFFFFFF
_RESERVED: Final = range(60_000, 65_536)
"""``nobody``, and what ``adduser`` and systemd hand out dynamically."""
_LOWEST: Final = 10_000


@dataclass(frozen=True, slots=True)
class UidRange:
    """Blocks of :data:`BLOCK` ids each, one after the other; ids are uid and gid alike."""

    first: int
    blocks: int


def find_range(uid_map: str, gid_map: str) -> UidRange | None:
    """The range for a process whose ``/proc/self/uid_map`` and ``gid_map`` are these texts."""
    found = [
        (max(first, other_first), min(last, other_last))
        for first, last in _extents(uid_map)
        for other_first, other_last in _extents(gid_map)
    ]
    for first, last in found:
        if first <= _FIRST and last >= _LAST:
            return UidRange(_FIRST, (_LAST - _FIRST + 1) // BLOCK)
    usable = [_usable(first, last) for first, last in found]
    first, last = max(usable, key=lambda part: part[1] - part[0], default=(0, -1))
    blocks = (last - first + 1) // BLOCK
    return UidRange(first, blocks) if blocks > 0 else None


def _usable(first: int, last: int) -> tuple[int, int]:
    """The larger part of an extent above the low ids and beside the reserved ones."""
    below = (max(first, _LOWEST), min(last, _RESERVED.start - 1))
    above = (max(first, _RESERVED.stop), last)
    return max(below, above, key=lambda part: part[1] - part[0])


def _extents(text: str) -> list[tuple[int, int]]:
    """First and last id, as seen inside, of each line."""
    fields = (list(map(int, line.split())) for line in text.splitlines() if line.strip())
    return [(first, first + count - 1) for first, _, count in fields]
