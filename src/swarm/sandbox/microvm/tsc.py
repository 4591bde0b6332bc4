"""How fast the processor's time stamp counter runs.

A guest under software emulation reads the host's counter, and the emulated machine has no other
clock by which its kernel could tell the counter's frequency; so it is told (``tsc_early_khz``).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

from swarm.kernel.errors import SandboxUnavailable

_READ_COUNTER: Final = bytes.fromhex("0f3148c1e2204809d0c3")
"""``rdtsc; shl rdx, 32; or rax, rdx; ret``"""
_WINDOW_SECONDS: Final = 0.02


@lru_cache(maxsize=1)
def frequency_khz() -> int:
    """Measured once; takes 20 ms.

    Raises:
        SandboxUnavailable: not an x86-64 processor.
    """
    if platform.machine() != "x86_64":
        raise SandboxUnavailable(
            f"virtual machines are built for x86-64, and this is {platform.machine()}",
            where="microvm",
            remedy="use `--isolation sandbox`",
        )
    try:
        return _measure()
    except OSError:  # Memory that is executable is refused (SELinux).
        match = re.search(
            r"^cpu MHz\s*: ([\d.]+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        )
        return round(float(match[1]) * 1000) if match else 2_000_000


def _measure() -> int:
    protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    with mmap.mmap(-1, mmap.PAGESIZE, prot=protection) as code:
        code.write(_READ_COUNTER)
        holder = ctypes.c_char.from_buffer(code)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(holder))
        started, first = time.perf_counter_ns(), read()
        while time.perf_counter_ns() - started < _WINDOW_SECONDS * 1e9:
            pass
        ended, last = time.perf_counter_ns(), read()
        del read, holder
    ticks: int = last - first
    return round(ticks * 1e6 / (ended - started))
