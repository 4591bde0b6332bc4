"""A virtual machine monitor as a confined process: unprivileged, single use, never outliving us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
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
_KILL_SECONDS: Final = 30.0
_CPUCLOCK_SCHED: Final = 2
_MEMORY: Final = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.top_pad=8388608"
"""What a machine needs, it needs at once: a few large pieces cost less than thousands of pages
(5,900 page faults for a restored machine become 3,800)."""


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

    def cpu_seconds(self) -> float:
        """What it has taken so far, or took in all."""
        if not self.exited.done():
            with contextlib.suppress(OSError):  # It has just died.
                # Linux numbers the processor clock of a process so: MAKE_PROCESS_CPUCLOCK.
                return time.clock_gettime((~self.pid << 3) | _CPUCLOCK_SCHED)
        return self.exited.result().cpu_seconds if self.exited.done() else 0.0

    def wake(self) -> None:
        """Give it ordinary priority, all its threads."""
        with contextlib.suppress(OSError):  # It has just died; its call tells how.
            for thread in Path(f"/proc/{self.pid}/task").iterdir():
                os.setpriority(os.PRIO_PROCESS, int(thread.name), 0)

    async def kill(self) -> Exit:
        """Kill it and wait until it is gone; safe to call twice.

        Raises:
            SandboxUnavailable: the kernel does not get rid of it.
        """
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await asyncio.wait([self.exited], timeout=_KILL_SECONDS)
        if not self.exited.done():
            raise SandboxUnavailable(
                f"process {self.pid} was killed and is still there after {_KILL_SECONDS:g} seconds",
                where="microvm",
                remedy="look at the kernel's log (dmesg) for what it waits for",
            )
        return self.exited.result()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        try:
            _, status, usage = os.wait4(self._process.pid, 0)
        except ChildProcessError:  # Somebody else has reaped it; its usage is not known.
            self._process.returncode = -signal.SIGKILL
            self.exited.set_result(Exit(signal.SIGKILL, 0.0))
            return
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.exited.set_result(Exit(status, usage.ru_utime + usage.ru_stime))


def start_process(
    command: Sequence[str],
    inherited: Sequence[int],
    output: IO[Any] | int,
    cgroup_files: Sequence[Path] = (),
    folder: Path = Path("/"),
    niceness: int = 0,
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
        niceness: until :meth:`MachineProcess.wake`.

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
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "GLIBC_TUNABLES": _MEMORY},
        cwd=folder,
        start_new_session=True,
    )
    if niceness:
        os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
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
