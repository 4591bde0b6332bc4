"""Runs ``swarm`` commands as processes of their own, forked from one that has imported everything.

Python's start and the imports are most of a short command. A command that is forked here has its
own process, environment, folder, pipes and end, as one that is started anew; what it does not show
is that each module imports what it needs, which commands that are started anew do show.

Told by a socket, whose file descriptor is the one argument. A request is its length (4 bytes, big
endian) with four file descriptors: standard input, output and error, and where the end is told;
then the JSON ``{arguments, environment, folder}``. Told of the end: first a line with the process
id, then a line with the exit code, which is negative for a signal. There are no threads here when
it forks.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import selectors
import socket
import sys
import time
from importlib import import_module
from typing import Any

from swarm import __main__ as program
from swarm import cli, vault
from swarm.cli.main import main as swarm_main
from swarm.dispatch import fleet
from swarm.store import postgres

PACKAGES = (cli, vault, postgres, fleet)
"""What commands import late, or whom."""

LENGTH_BYTES = 4
DESCRIPTORS = 4


def import_everything() -> None:
    """Import all that the commands do, most of which they import when they are used."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    gc.freeze()


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request; None at the end."""
    head, descriptors, _, _ = socket.recv_fds(control, LENGTH_BYTES, DESCRIPTORS)
    if not head:
        return None
    missing, parts = int.from_bytes(head), []
    while missing:
        parts.append(control.recv(missing))
        missing -= len(parts[-1])
    return json.loads(b"".join(parts)), descriptors


def become(request: dict[str, Any], descriptors: list[int], control: socket.socket) -> None:
    """Make this process, which was just forked, what the request asks for."""
    for target, source in enumerate(descriptors[:3]):
        os.dup2(source, target)
    control.close()
    os.closerange(3, 256)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = [str(program.__file__), *request["arguments"]]


def serve(control: socket.socket) -> bool:
    """Fork a process for each request; True in such a process, False at the end."""
    running: dict[int, tuple[int, int]] = {}
    with selectors.PollSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    selector.unregister(key.fd)
                    pid, told = running.pop(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    os.write(told, f"{code}\n".encode())
                    os.close(key.fd)
                    os.close(told)
                    continue
                if (received := receive(control)) is None:
                    return False
                request, descriptors = received
                pid = os.fork()
                if pid == 0:
                    become(request, descriptors, control)
                    return True
                *streams, told = descriptors
                os.write(told, f"{pid}\n".encode())
                for stream in streams:
                    os.close(stream)
                ended = os.pidfd_open(pid)
                running[ended] = (pid, told)
                selector.register(ended, selectors.EVENT_READ)


if __name__ == "__main__":
    import_everything()
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        swarm_main()
