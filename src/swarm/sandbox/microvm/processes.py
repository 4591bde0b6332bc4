"""A virtual machine monitor as a confined process: unprivileged, single use, never outliving us."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from swarm.kernel.errors import SandboxUnavailable

_FIRST_USER: Final = 0x7FFFF000
_USERS: Final = 0xFFE
"""Users of machines: the block of the sandboxes' range (see ``linux.zygote.identities``) that no
zygote claims."""
_KVM: Final = "/dev/kvm"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a machine's process ended."""

    status: int
    cpu_seconds: float


class MachineProcess:
    """A running process; ``exited`` is settled when it is gone and reaped."""

    def __init__(self, process: subprocess.Popen[bytes], cgroup_files: Sequence[Path]) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[Exit] = loop.create_future()
        loop.add_reader(self._pidfd, self._reap)
        for file in cgroup_files:
            file.write_text(str(process.pid))

    @property
    def pid(self) -> int:
        return self._process.pid

    async def kill(self) -> Exit:
        """Kill it and wait until it is gone; safe to call twice."""
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        return await asyncio.shield(self.exited)

    def _reap(self) -> None:
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.exited.set_result(Exit(status, usage.ru_utime + usage.ru_stime))


def start_process(
    command: Sequence[str],
    inherited: Sequence[int],
    output: IO[Any] | int,
    cgroup_files: Sequence[Path] = (),
    folder: Path = Path("/"),
) -> MachineProcess:
    """Start ``command`` confined.

    It has no capability and cannot gain one, is an unprivileged user of its own where we are
    root, and is killed with the thread that called (the event loop's).

    Args:
        command: program and arguments.
        inherited: descriptors that it gets, under the same numbers.
        output: where its stdout and stderr go.
        cgroup_files: files of the groups that it joins.
        folder: where it runs.

    Raises:
        SandboxUnavailable: a program is missing.
    """
    needed = {"setpriv": "util-linux", command[0]: "qemu-system-x86"}
    for name, package in needed.items():
        if shutil.which(name) is None:
            raise SandboxUnavailable(
                f"{name} is missing",
                where=name,
                remedy=f"`apt-get install --no-install-recommends {package}`",
            )
    process = subprocess.Popen(
        [*_confinement(), *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=inherited,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"},
        cwd=folder,
        start_new_session=True,
    )
    return MachineProcess(process, cgroup_files)


def _confinement() -> list[str]:
    options = ["setpriv", "--no-new-privs", "--pdeathsig", "KILL"]
    if os.geteuid() != 0:
        return options
    user = _FIRST_USER + secrets.randbelow(_USERS)
    groups = ["--clear-groups"]
    if Path(_KVM).exists():
        groups = ["--groups", str(Path(_KVM).stat().st_gid)]
    no_capabilities = ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]
    return [*options, *no_capabilities, f"--reuid={user}", f"--regid={user}", *groups]
