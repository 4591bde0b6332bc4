"""Which accelerator works here, and what ``swarm doctor`` says of this level."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from swarm.kernel.errors import InvalidError, SandboxUnavailable
from swarm.kernel.home import Home
from swarm.kernel.json import dump_bytes, loads
from swarm.kernel.settings import Settings
from swarm.sandbox.microvm.accelerators import Accelerator
from swarm.sandbox.microvm.firecracker import FirecrackerMonitor, can_run
from swarm.sandbox.microvm.image import Image, find_image
from swarm.sandbox.microvm.monitors import Monitor
from swarm.sandbox.microvm.qemu import QemuMonitor
from swarm.sandbox.microvm.qemu_command import PROGRAM, probe_command_line
from swarm.sandbox.ports import LayerReport

_ALIVE: Final = "swarm-init: alive"
_KVM_SECONDS: Final = 8.0
_KVM: Final = Path("/dev/kvm")
QEMU_REMEDY: Final = "`apt-get install --no-install-recommends qemu-system-x86`"


def qemu_version() -> str:
    """What QEMU says of itself, in one line.

    Raises:
        SandboxUnavailable: it is missing.
    """
    try:
        done = subprocess.run(
            [PROGRAM, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxUnavailable(
            f"QEMU cannot be run: {error}", where=PROGRAM, remedy=QEMU_REMEDY
        ) from None
    return done.stdout.partition("\n")[0]


def choose_accelerator(settings: Settings, image: Image, version: str) -> Accelerator:
    """KVM where a trial machine has booted with it (remembered until this machine restarts).

    Blocks for up to 8 seconds the first time.
    """
    if settings.microvm_accelerator != "auto":
        return Accelerator(settings.microvm_accelerator)
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return Accelerator.TCG
    memory = Home(settings.home.expanduser().absolute()).cache / "microvm" / "accelerator.json"
    subject = [_boot_id(), version, image.digest, os.geteuid()]
    try:
        remembered = loads(memory.read_bytes())
        if isinstance(remembered, dict) and remembered.get("subject") == subject:
            return Accelerator(str(remembered["accelerator"]))
    except (OSError, InvalidError, ValueError):
        pass  # Not probed yet.
    found = Accelerator.KVM if boots(Accelerator.KVM, image) else Accelerator.TCG
    memory.parent.mkdir(parents=True, exist_ok=True)
    new = memory.with_suffix(f".{os.getpid()}")
    new.write_bytes(dump_bytes({"subject": subject, "accelerator": str(found)}))
    new.rename(memory)
    return found


def choose_monitor(settings: Settings, image: Image) -> Monitor:
    """The monitor that the settings name. By itself: QEMU where it is installed, else Firecracker.

    Blocks while a trial machine boots.

    Raises:
        SandboxUnavailable: it cannot be run here.
    """
    if _is_firecracker_chosen(settings):
        return FirecrackerMonitor()
    version = qemu_version()
    return QemuMonitor(choose_accelerator(settings, image, version), version)


def _is_firecracker_chosen(settings: Settings) -> bool:
    if settings.microvm_monitor == "auto":
        return shutil.which(PROGRAM) is None and can_run()
    return settings.microvm_monitor == "firecracker"


def boots(accelerator: Accelerator, image: Image, seconds: float = _KVM_SECONDS) -> bool:
    """Whether a machine gets as far as its first program in time.

    A ``/dev/kvm`` that opens proves nothing: under some hypervisors its machines never run.
    """
    try:
        done = subprocess.run(
            probe_command_line(accelerator, image.kernel, image.initramfs),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return _ALIVE.encode() in done.stdout


def probe_microvm(settings: Settings) -> list[LayerReport]:
    """Rows on this level for ``swarm doctor``. None is required unless an agent asks for it."""
    is_firecracker = _is_firecracker_chosen(settings)
    name = "microvm-firecracker" if is_firecracker else "microvm-qemu"
    version = None
    try:
        version = FirecrackerMonitor().version if is_firecracker else qemu_version()
        rows = [LayerReport(name, False, True, version)]
    except SandboxUnavailable as error:
        rows = [LayerReport(name, False, False, error.message, error.remedy)]
    try:
        image = find_image(settings)
    except SandboxUnavailable as error:
        rows.append(LayerReport("microvm-image", False, False, error.message, error.remedy))
        return rows
    text = f"Linux {image.kernel_version}, Python {image.python_version} ({image.folder})"
    rows.append(LayerReport("microvm-image", False, True, text))
    if version is not None and not is_firecracker:
        rows.append(_accelerator_row(choose_accelerator(settings, image, version)))
    return rows


def _accelerator_row(accelerator: Accelerator) -> LayerReport:
    if accelerator is Accelerator.KVM:
        return LayerReport("microvm-kvm", False, True, "machines are executed by KVM")
    if not _KVM.exists():
        why = "there is no /dev/kvm"
    elif not os.access(_KVM, os.R_OK | os.W_OK):
        why = "/dev/kvm may not be opened by this user"
    else:
        why = "/dev/kvm is there, but no machine boots with it"
    return LayerReport(
        "microvm-kvm",
        False,
        False,
        f"{why}; machines are executed by software emulation (microvm-tcg): as isolated, slower",
        "enable virtualization, or add this user to the group `kvm`",
    )


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
