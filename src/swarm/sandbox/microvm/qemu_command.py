"""QEMU's command line: pure. A machine is restored with the same devices that it booted with.

Source: QEMU's ``docs/system/i386/microvm.rst`` and ``qemu-options.hx``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm.sandbox.microvm.accelerators import Accelerator
from swarm.sandbox.microvm.agent.port import PORT_NAME

PROGRAM: Final = "qemu-system-x86_64"
_CPU: Final = {
    Accelerator.KVM: "host",
    # What nearly every wheel asks for (x86-64-v2), and little that is slow to emulate.
    Accelerator.TCG: "Nehalem-v1,+rdrand",
}
_SECCOMP: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_QUIET: Final = "quiet loglevel=3 panic=-1 reboot=t console=ttyS0 8250.nr_uarts=1"
_FAST: Final = (
    "mitigations=off cryptomgr.notests random.trust_cpu=on audit=0 ima=off "
    "lsm=none psi=0 hardened_usercopy=off transparent_hugepage=never nowatchdog"
)
"""One handler is all that a guest's kernel ever serves, and the machine is what holds it."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Open files and sockets that QEMU inherits."""

    memory: int
    """A memory file of the machine's size."""
    root: int
    agent: int
    package: int
    inputs: int
    stream: int
    """One end of the stream to the guest's agent."""
    control: int
    """One end of the control connection."""
    is_memory_shared: bool = True
    """Whether the memory file is written to, rather than copied on write."""

    def numbers(self) -> tuple[int, ...]:
        disks = (self.root, self.agent, self.package, self.inputs)
        return (self.memory, *disks, self.stream, self.control)


@dataclass(frozen=True, slots=True)
class Boot:
    """What a machine boots. One that is restored has none of it."""

    kernel: int
    initramfs: int
    tsc_khz: int
    """Of this processor; see :mod:`swarm.sandbox.microvm.tsc`."""


def command_line(
    accelerator: Accelerator, descriptors: Descriptors, memory_bytes: int, boot: Boot | None
) -> list[str]:
    """The program and its arguments.

    Args:
        accelerator: chosen by a probe.
        descriptors: what it inherits.
        memory_bytes: size of the machine; a multiple of 1 MiB.
        boot: None for a machine that is restored.
    """
    memory = f"/proc/self/fd/{descriptors.memory}"
    options = [
        PROGRAM,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", _SECCOMP),
        *("-accel", "tcg,thread=single,tb-size=64" if accelerator is Accelerator.TCG else "kvm"),
        *("-cpu", _CPU[accelerator], "-smp", "1", "-m", f"{memory_bytes}B"),
        "-machine",
        "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on,auto-kernel-cmdline=off,"
        "memory-backend=ram",
        "-object",
        f"memory-backend-file,id=ram,size={memory_bytes},mem-path={memory},"
        f"share={'on' if descriptors.is_memory_shared else 'off'}",
        *("-chardev", f"socket,id=control,fd={descriptors.control}"),
        *("-mon", "chardev=control,mode=control"),
        *("-chardev", f"socket,id=stream,fd={descriptors.stream}"),
        *("-chardev", "null,id=console" if boot is None else "stdio,id=console,signal=off"),
        *("-serial", "chardev:console"),
        *("-device", "virtio-serial-device,max_ports=2"),
        *("-device", f"virtserialport,chardev=stream,name={PORT_NAME},nr=1"),
    ]
    for name in ("root", "agent", "package", "inputs"):
        options += _disk(name, getattr(descriptors, name))
    if boot is None:
        return [*options, "-incoming", "defer"]
    return [
        *options,
        *("-kernel", f"/proc/self/fd/{boot.kernel}", "-initrd", f"/proc/self/fd/{boot.initramfs}"),
        *("-append", _kernel_words(accelerator, boot.tsc_khz)),
    ]


def probe_command_line(accelerator: Accelerator, kernel: Path, initramfs: Path) -> list[str]:
    """A machine that says ``swarm-init: alive`` on its console and ends."""
    return [
        *_bare(accelerator),
        *("-kernel", str(kernel), "-initrd", str(initramfs)),
        *("-append", f"{_QUIET} {_FAST} rdinit=/init swarm.probe"),
    ]


def program_command_line(
    accelerator: Accelerator,
    kernel: int,
    initramfs: int,
    root: int,
    disk: int,
    *,
    program: str,
    tsc_khz: int,
) -> list[str]:
    """A machine that runs a Python program of the agent's disk as its first, not the agent.

    Its console is QEMU's standard output. The numbers are descriptors that QEMU inherits.
    """
    words = f"{_kernel_words(accelerator, tsc_khz)} swarm.program={program}"
    return [
        *_bare(accelerator),
        *_disk("root", root),
        *_disk("agent", disk),
        *("-kernel", f"/proc/self/fd/{kernel}", "-initrd", f"/proc/self/fd/{initramfs}"),
        *("-append", words),
    ]


def _bare(accelerator: Accelerator) -> list[str]:
    return [
        PROGRAM,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", _SECCOMP, "-accel", str(accelerator), "-cpu", _CPU[accelerator], "-m", "256"),
        *("-machine", "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,auto-kernel-cmdline=off"),
        *("-serial", "stdio"),
    ]


def _disk(name: str, descriptor: int) -> list[str]:
    return [
        *("-add-fd", f"fd={descriptor},set={descriptor}"),
        "-blockdev",
        f"driver=raw,node-name={name},read-only=on,file.driver=file,file.locking=off,"
        f"file.filename=/dev/fdset/{descriptor}",
        *("-device", f"virtio-blk-device,drive={name},serial={name}"),
    ]


def _kernel_words(accelerator: Accelerator, tsc_khz: int) -> str:
    words = f"{_QUIET} {_FAST} rdinit=/init"
    if accelerator is Accelerator.TCG:
        words += f" tsc_early_khz={tsc_khz} tsc=reliable"
    return words
