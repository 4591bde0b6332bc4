"""Running a program under the recorder, and reading what it recorded. See ``recorder.c``."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

from tests.recovery.power.disk import Disk, Event, Tree

COMPILER = shutil.which("gcc") or shutil.which("cc")
PATIENCE_SECONDS = 120
_HEAD = struct.Struct("<cQQQII")


def build_recorder(folder: Path) -> Path:
    """Compile the library that is preloaded."""
    assert COMPILER is not None
    library = folder / "recorder.so"
    source = Path(__file__).with_name("recorder.c")
    options = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run([COMPILER, *options, "-o", library, source, "-ldl"], check=True)
    return library


class Recording:
    """A folder as it was, and what a program then did to what is below it."""

    def __init__(self, folder: Path, recorder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self._folder = folder
        self._recorder = recorder
        self._trace = folder / "trace"

    def run(self, command: Sequence[str | Path], until: Callable[[], bool] | None = None) -> None:
        """Run a program to its good end, or until it is killed."""
        self._start = Tree.of(self.root)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "LD_PRELOAD": str(self._recorder),
            "POWER_ROOT": str(self.root.resolve()),
            "POWER_TRACE": str(self._trace),
        }
        process = subprocess.Popen(command, env=environment)
        ends = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and not (until and until()):
            assert time.monotonic() < ends
            time.sleep(0.005)
        process.kill()
        assert process.wait() == (0 if until is None else -signal.SIGKILL)
        self._events = list(read_trace(self._trace))
        self.root.rename(self._folder / "recorded")

    def states(
        self, count: int, chance: random.Random, forgets: Container[str] = ()
    ) -> Iterator[tuple[Disk, Path]]:
        """States that losses of power may have left: at the start, at the end, and at random
        moments between, the earliest first.

        Each lies where the recorded folder did until its turn is over, and comes with the disk as
        it was at that moment.
        """
        disk = Disk(self._start, forgets)
        done = 0
        between = (chance.randint(0, len(self._events)) for _ in range(count - 2))
        for moment in sorted((0, len(self._events), *between)):
            for event in self._events[done:moment]:
                disk.apply(event)
            done = moment
            disk.lose_power(self.root, chance)
            try:
                yield disk, self.root
            finally:
                shutil.rmtree(self.root)

    def end(self) -> tuple[Disk, Path]:
        """The disk at the end, and what programs see of it while the power stays on."""
        disk = Disk(self._start)
        for event in self._events:
            disk.apply(event)
        disk.write(self.root)
        return disk, self.root


def read_trace(path: Path) -> Iterator[Event]:
    """The events in order; one that a kill cut short is left out."""
    data = memoryview(path.read_bytes())
    offset = 0
    while offset + _HEAD.size <= len(data):
        operation, a, b, c, first, second = _HEAD.unpack_from(data, offset)
        start = offset + _HEAD.size
        offset = start + first + second
        if offset <= len(data):
            strings = bytes(data[start : start + first]), bytes(data[start + first : offset])
            yield Event(operation.decode(), a, b, c, *strings)
