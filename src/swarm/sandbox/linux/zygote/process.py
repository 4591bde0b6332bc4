"""The process of a sandbox that becomes its handler."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from . import building, channel, confinement, syscalls
from .steps import LayerError, layer

WIRE = 3
"""The handler's descriptor of the wire, after stdin, stdout and stderr."""
_HIGH = 16
"""Descriptors are moved above this number while 0 to 3 are put in place."""


@dataclass(frozen=True)
class Template:
    """What every sandbox of a zygote has in common."""

    staging: str
    inside: int
    """The handler's uid and gid as it sees them."""
    last_capability: int
    landlock: int
    devices: list[str]
    filters: dict[str, bytes]
    guest: Callable[[], None]


@dataclass(frozen=True)
class Job:
    """One spawn: descriptors received, and what the zygote adds."""

    channel: int
    wire: int
    stdout: int
    stderr: int
    zygote: int
    """A pidfd of the zygote."""
    init: int
    """A pidfd of the sandbox's init."""
    uid: int
    maps: dict[str, int]
    """ID-mapping user namespaces, by ``uid:gid`` of a file's owner."""


def run(template: Template, job: Job) -> NoReturn:
    """Build the sandbox and be its handler; the caller is the fresh fork. Never returns."""
    host = socket.socket(fileno=job.channel)
    try:
        kept = [0, 1, 2, job.channel, job.wire, job.stdout, job.stderr, job.zygote, job.init]
        syscalls.close_all_but([*kept, *job.maps.values()])
        plan = channel.read_plan(host)
        folders = _build(template, job, plan)
        report = _arrange_descriptors(job, host)
        passed = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _HIGH) for number in folders]
        syscalls.close_all_but([0, 1, 2, WIRE, report.fileno(), *passed])
        start = _prepare_program(template, plan)
        confinement.limit_resources(plan["resource_limits"])
        confinement.restrict_files(template.landlock, template.devices)
        confinement.filter_calls(template.filters[plan["filter"]])
    except BaseException as error:  # noqa: BLE001  this process must not go on as the zygote
        _report_failure(host, error)
        os._exit(70)
    channel.send(report, {"event": "ready", "cpu_seconds": time.process_time()}, passed)
    report.close()
    syscalls.close_all_but([0, 1, 2, WIRE])
    try:
        start()
    except BaseException:  # noqa: BLE001  nor here
        os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
        os._exit(70)
    os._exit(0)


def _build(template: Template, job: Job, plan: dict[str, Any]) -> list[int]:
    """Make the sandbox around this process, up to the loss of all power.

    Returns:
        Descriptors that the host gets: of the writable folders, and of the proxy's listener.
    """
    # The zygote is not dumpable; a process that is not may not write its own ID mapping.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    process = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    folder = f"/proc/self/fd/{process}"
    building.stand_back(plan["niceness"])
    building.join_cgroups(plan["cgroup"])
    building.go_first_when_memory_runs_out(folder)
    building.enter_namespaces(job.init)
    building.build_root(plan, template.staging, job.uid, job.maps)
    passed = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in confinement.WRITABLE]
    if plan["proxy_port"]:
        passed.append(building.open_proxy_listener(plan["proxy_port"]).detach())
    building.give_up_power(folder, job.uid, template.inside, template.last_capability)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([job.zygote], [], [], 0)[0]:
        raise EOFError("the zygote died")
    os.setsid()
    return passed


def _arrange_descriptors(job: Job, host: socket.socket) -> socket.socket:
    """Put the wire and the pipes at their numbers; returns the channel, moved out of the way."""
    report = fcntl.fcntl(host, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    high = [
        fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        for number in (job.stdout, job.stderr, job.wire)
    ]
    for number, target in zip(high, (1, 2, WIRE), strict=True):
        os.dup2(number, target, inheritable=True)
    host.detach()
    return socket.socket(fileno=report)


def _prepare_program(template: Template, plan: dict[str, Any]) -> Callable[[], object]:
    """Set the surroundings; the returned call starts the program."""
    environment: dict[str, str] = plan["environment"]
    with layer("working-folder"):
        os.chdir("/package")
    os.umask(0o022)
    if plan["program"]:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        program: list[str] = plan["program"]
        return lambda: _execute(program, environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv = ["handler"]
    return template.guest


def _execute(program: list[str], environment: dict[str, str]) -> NoReturn:
    try:
        os.execve(program[0], program, environment)
    except OSError as error:
        os.write(2, f"{program[0]} cannot be executed: {error.strerror}\n".encode())
        os._exit(127)


def _report_failure(host: socket.socket, error: BaseException) -> None:
    failure = error if isinstance(error, LayerError) else None
    if failure is None:
        text = "".join(traceback.format_exception(error))
        code = error.errno or 0 if isinstance(error, OSError) else 0
        failure = LayerError("zygote", code, text)
    with contextlib.suppress(OSError):
        channel.send(host, failure.as_json(), [])
