"""How guests are executed: by KVM where that works, else by software emulation."""

from __future__ import annotations

from enum import StrEnum


class Accelerator(StrEnum):
    KVM = "kvm"
    TCG = "tcg"
    """QEMU's software emulation: as isolated, and several times slower."""

    @property
    def layer(self) -> str:
        """What a step's record says: ``microvm-kvm`` or ``microvm-tcg``."""
        return f"microvm-{self}"
