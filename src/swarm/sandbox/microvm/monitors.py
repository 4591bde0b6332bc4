"""What runs virtual machines: the port that QEMU's and Firecracker's drivers serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from swarm.sandbox.microvm.image import Image
from swarm.sandbox.microvm.processes import MachineProcess
from swarm.sandbox.microvm.snapshots import Template
from swarm.sandbox.microvm.stream import GuestStream
from swarm.sandbox.microvm.workplace import Workplace


class MachinePlan(Struct, frozen=True):
    """What a machine is made of. A snapshot is restored with disks of the same sizes."""

    image: Image
    workplace: Workplace
    """Where a monitor makes a folder for a machine's sockets, if it needs one."""
    memory_bytes: int
    """A multiple of 1 MiB."""
    agent: int
    """Descriptor of the disk with the guest's agent."""
    package: int
    inputs: int
    niceness: int = 0
    cgroup_files: Sequence[Path] = ()
    """Files of the groups that its process joins."""
    locks: Sequence[int] = ()
    """Descriptors whose locks must not come free before the machine is gone."""


class Machine(Protocol):
    """A machine and the stream to its agent."""

    @property
    def stream(self) -> GuestStream: ...

    @property
    def process(self) -> MachineProcess: ...

    async def kill(self) -> None:
        """End it. Safe to call twice, and while it is being killed.

        Raises:
            SandboxUnavailable: the kernel does not get rid of it.
        """
        ...

    def console_text(self) -> str:
        """The end of what it and its monitor said."""
        ...


class Monitor(Protocol):
    """Boots machines, puts them into snapshots, restores them.

    All raise SandboxUnavailable for a monitor that is missing, refuses, or does not answer in time.
    """

    @property
    def layer(self) -> str:
        """What a step's record says: ``microvm-kvm``, ``microvm-tcg``, ``microvm-firecracker``."""
        ...

    def identity(self) -> list[str]:
        """Changes whenever a snapshot made before would not fit any more."""
        ...

    async def boot(self, plan: MachinePlan) -> Machine:
        """Start a machine from the image's kernel."""
        ...

    async def snapshot(self, machine: Machine, folder: Path) -> None:
        """Stop a machine and write files ``memory`` and ``state``.

        Args:
            machine: booted, or restored with ``is_kept``, by this monitor.
            folder: gets the files.
        """
        ...

    async def restore(
        self, plan: MachinePlan, template: Template, *, is_kept: bool = False
    ) -> Machine:
        """Start a machine from a snapshot.

        Args:
            plan: what it is made of.
            template: the snapshot.
            is_kept: whether it will be put into a snapshot itself.
        """
        ...
