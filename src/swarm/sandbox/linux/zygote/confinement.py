"""What is put on the handler alone, last: resource limits, Landlock, the seccomp filter."""

from __future__ import annotations

import os
import resource
from typing import Final

from . import syscalls
from .steps import layer

# linux/landlock.h
_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_TRUNCATE: Final = 1 << 14
_ACCESS_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many access rights each version knows; 16 from version 5 on."""
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 3

WRITABLE: Final = ("/tmp", "/outputs")


def limit_resources(limits: dict[str, int]) -> None:
    """Set each ``RLIMIT_<name>``, soft and hard, never above what is allowed already."""
    with layer("resource-limits"):
        for name, value in limits.items():
            kind = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(kind)[1]
            bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (bound, bound))


def restrict_files(version: int, devices: list[str]) -> None:
    """Landlock: read and execute everywhere, write only where it is meant.

    The mounts say the same. What this adds: FIFOs in a live input cannot be written (a read-only
    mount does not stop that), and nothing outside, init included, can be signalled or traced.
    """
    if version == 0:
        return
    everything = (1 << _ACCESS_BITS.get(version, 16)) - 1
    with layer("landlock"):
        scope = _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
        ruleset = syscalls.landlock_create(everything, scope, version)
        syscalls.landlock_allow(ruleset, "/", _EXECUTE | _READ_FILE | _READ_DIR)
        for path in WRITABLE:
            syscalls.landlock_allow(ruleset, path, everything)
        device_access = (_READ_FILE | _WRITE_FILE | _TRUNCATE) & everything
        for path in devices:
            syscalls.landlock_allow(ruleset, path, device_access)
        syscalls.landlock_restrict(ruleset)
        os.close(ruleset)


def filter_calls(instructions: bytes) -> None:
    with layer("seccomp"):
        syscalls.install_filter(instructions)
