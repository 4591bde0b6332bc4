"""Starts `swarm` commands as processes of their own, without paying for Python's start each time.

Reads one JSON array per line: ``["start", <output file>, <place>, <argument>...]`` forks a process
that runs the command line as ``swarm`` does, in a session of its own, and answers its process id;
with ``ask`` as the first argument it runs the program of that name instead (see ``asking``). The
place is ``[<network namespace>, <variables>]``, the namespace's path being empty for this one.
``["collect", <pid>]`` waits for it and answers its exit code. Until then its number is not given to
another process. There are no threads here, and nothing of a home is open, when it forks. What was
started ends with the nursery, which ends with whoever made it: also if that is killed.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys

from swarm.cli import session
from swarm.cli.commands import (
    agent_registry,
    answers,
    events,
    run,
    runs,
    steer,
    worker,
    workflow_registry,
)
from swarm.cli.main import main as swarm
from tests.recovery.kills import asking

PR_SET_PDEATHSIG = 1
"""prctl(2)."""
CLONE_NEWNET = 0x40000000
"""setns(2)."""
_libc = ctypes.CDLL(None, use_errno=True)
LOADED = (session, agent_registry, answers, events, run, runs, steer, worker, workflow_registry)
"""Loaded here, which the commands would do one by one."""


def start(output: str, network: str, variables: dict[str, str], arguments: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.update(variables)
    if network:
        enter(network)
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, nothing), (1, file), (2, file)):
        os.dup2(source, target)
    os.closerange(3, 64)
    sys.argv = ["swarm", *arguments]
    try:
        (asking.main if arguments[0] == asking.NAME else swarm)()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    os._exit(0)


def enter(network: str) -> None:
    """Go on in a network namespace."""
    descriptor = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"{network} cannot be entered")
    os.close(descriptor)


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        match json.loads(line):
            case ["start", output, [network, variables], *arguments]:
                answer = start(output, network, variables, arguments)
            case ["collect", pid]:
                answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(1, f"{answer}\n".encode())


if __name__ == "__main__":
    main()
