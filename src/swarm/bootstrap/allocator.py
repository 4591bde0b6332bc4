"""The C library's allocator, in processes that stay: they give back what they no longer use.

By default glibc keeps up to eight arenas for each core, and learns from the first large block that
is freed to take such blocks from an arena, too, where a small block behind one keeps it from the
system. A process with many threads that handles values of megabytes now and then grows by it for
an hour, without anything that leaks.
"""

from __future__ import annotations

import ctypes
from typing import Final

ARENAS: Final = 2
"""Threads that allocate at the same moment without waiting; the interpreter lets one run."""
LARGE_BYTES: Final = 128 * 1024
"""Larger blocks are mapped by themselves, and go back when they are freed; glibc's own start."""

# The parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8


def bound_arenas() -> bool:
    """Set it up for this process; a process that is made by exec does not inherit it.

    Returns:
        Whether the C library has taken it: others than glibc have no such parameters.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = (
        (_ARENA_MAX, ARENAS),
        (_MMAP_THRESHOLD, LARGE_BYTES),
        (_TRIM_THRESHOLD, LARGE_BYTES),
    )
    return all(mallopt(name, value) == 1 for name, value in settings)
