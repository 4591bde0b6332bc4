"""QEMU's command line."""

from __future__ import annotations

import itertools

from swarm.sandbox.microvm.accelerators import Accelerator
from swarm.sandbox.microvm.qemu_command import Boot, Descriptors, command_line

RESTORED = Descriptors(10, 11, 12, 13, 14, 15, 16, is_memory_shared=False)
BOOTING = Descriptors(*range(10, 17))
BOOT = Boot(kernel=17, initramfs=18, tsc_khz=2_345_678)


def devices(command: list[str]) -> list[str]:
    return [value for option, value in itertools.pairwise(command) if option == "-device"]


def test_a_machine_has_the_devices_it_needs_and_no_others() -> None:
    command = command_line(Accelerator.TCG, RESTORED, 1 << 28, None)
    kinds = [device.partition(",")[0] for device in devices(command)]
    assert kinds == [
        *("virtio-serial-device", "virtserialport"),
        *(["virtio-blk-device"] * 4),
    ]
    assert "-nodefaults" in command
    assert not {"-netdev", "-nic", "-net"} & set(command)
    assert all("read-only=on" in word for word in command if word.startswith("driver=raw"))


def test_it_is_restored_with_the_devices_it_booted_with() -> None:
    booted = command_line(Accelerator.TCG, BOOTING, 1 << 28, BOOT)
    restored = command_line(Accelerator.TCG, RESTORED, 1 << 28, None)
    assert devices(booted) == devices(restored)
    assert "share=on" in " ".join(booted)
    assert "share=off" in " ".join(restored)
    assert "-kernel" not in restored


def test_qemu_may_not_start_programs_or_gain_rights() -> None:
    command = command_line(Accelerator.KVM, BOOTING, 1 << 28, BOOT)
    filters = command[command.index("-sandbox") + 1]
    for part in ("on", "obsolete=deny", "elevateprivileges=deny", "spawn=deny"):
        assert part in filters.split(",")


def test_only_software_emulation_is_told_the_counters_frequency() -> None:
    emulated = command_line(Accelerator.TCG, BOOTING, 1 << 28, BOOT)
    assert "tsc_early_khz=2345678" in " ".join(emulated)
    assert "tsc" not in " ".join(command_line(Accelerator.KVM, BOOTING, 1 << 28, BOOT))
