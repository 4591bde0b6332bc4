"""The first process of a sandbox, started outside of one by a program of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.sandbox import linux
from swarm.sandbox.linux import seccomp

PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from zygote import init
lock = os.open("/dev/null", os.O_RDONLY)
inits = init.InitProgram(
    os.pidfd_open(os.getpid()), [lock], json.loads(sys.argv[2]), bytes.fromhex(sys.argv[3])
)
started = inits.start()
print(json.dumps({"pid": started.pid, "lock": lock}), flush=True)
sys.stdin.read()
"""
UID = 0x7FFFFFF0
FOLDER = str(Path(linux.__file__).parent)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do without the zygote")


class Started:
    """The program, and the init that it started."""

    def __init__(self, program: str = PROGRAM) -> None:
        arguments = [FOLDER, json.dumps(UID), seccomp.init_filter().hex()]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.lock: int = told["lock"]
        self.pid: int = told["pid"]
        self.pidfd = os.pidfd_open(self.pid)

    def status(self) -> dict[str, str]:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.pidfd)


@pytest.fixture
def started() -> Iterator[Started]:
    found = Started()
    yield found
    found.close()


def wait_until_sealed(started: Started) -> dict[str, str]:
    """Its filter is the last thing that it puts on."""
    while (status := started.status())["Seccomp"] != "2":
        os.sched_yield()
    return status


def test_it_has_no_power(started: Started) -> None:
    status = wait_until_sealed(started)
    assert status["Uid"].split() == [str(UID)] * 4
    assert status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"] == ""
    assert status["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NSpid"].split()[-1] == "1"


def test_it_keeps_the_locks_and_nothing_else(started: Started) -> None:
    wait_until_sealed(started)
    assert [path.name for path in Path(f"/proc/{started.pid}/fd").iterdir()] == [str(started.lock)]


def test_it_has_namespaces_of_its_own(started: Started) -> None:
    for name in ("pid", "mnt", "net", "ipc", "uts"):
        its = Path(f"/proc/{started.pid}/ns/{name}")
        assert not its.samefile(f"/proc/self/ns/{name}"), name


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_zygote(started: Started, number: int) -> None:
    started.process.send_signal(number)
    assert select.select([started.pidfd], [], [], 30)[0]


def test_it_ends_with_a_zygote_that_died_before_it_looked() -> None:
    """However early: the program dies at once, before its init may have run at all."""
    program = PROGRAM.replace("sys.stdin.read()", "os.kill(os.getpid(), 9)")
    for _ in range(20):
        started = Started(program)
        assert select.select([started.pidfd], [], [], 30)[0]
        started.close()


def test_a_refused_call_is_told() -> None:
    program = PROGRAM.replace(
        "started = inits.start()",
        """
inits._calls.insert(2, init.Call("nosuch", 10_000, ()))
code = init.assemble(inits._calls)
inits._memory = memory = init.mmap.mmap(-1, len(code), 0x22)
memory.write(code)
inits._entry = init.ctypes.addressof(init.ctypes.c_char.from_buffer(memory))
init.syscalls.make_executable(inits._entry, len(code))
started = inits.start()
_, status = os.waitpid(started.pid, 0)
print(json.dumps(str(inits.failure(status))), flush=True)
sys.exit()
""",
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, FOLDER, str(UID), seccomp.init_filter().hex()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == "init: the kernel refused nosuch"
