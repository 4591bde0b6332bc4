"""A process that stays gives back what large values took."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """\
import sys
from pathlib import Path
from swarm.bootstrap.allocator import bound_arenas

MIB = 2**20

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "bound":
    assert bound_arenas()
before, small = resident(), []
for _ in range(3):
    large = []
    for _ in range(64):
        large.append(b"x" * MIB)
        small.append(bytearray(2000))  # stays, behind the large one
    large.clear()
print((resident() - before) / MIB)
"""


@pytest.mark.parametrize(("how", "least", "most"), [("bound", 0, 8), ("left", 24, 250)])
def test_freed_blocks_go_back_to_the_system(how: str, least: float, most: float) -> None:
    """As it would be without, the other way: else the test could not fail."""
    child = [sys.executable, "-c", PROGRAM, how]
    kept = float(subprocess.run(child, capture_output=True, check=True, text=True).stdout)
    assert least <= kept <= most
