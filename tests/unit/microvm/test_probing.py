"""Which monitor is chosen, and what ``swarm doctor`` says of it, by stand-ins on the PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.settings import Settings
from swarm.sandbox.microvm import firecracker, probing
from swarm.sandbox.microvm.image import Image


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install(folder: Path, name: str, version: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{version}'\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(firecracker, "_KVM", str(tmp_path / "kvm"))


def test_without_a_monitor_the_remedy_is_told(tmp_path: Path, programs: Path) -> None:
    assert list(programs.iterdir()) == []
    rows = probing.probe_microvm(Settings(home=tmp_path))
    assert [(row.name, row.available) for row in rows] == [
        ("microvm-qemu", False),
        ("microvm-image", False),
    ]
    assert all(row.remedy for row in rows)
    rows = probing.probe_microvm(Settings(home=tmp_path, microvm_monitor="firecracker"))
    assert (rows[0].name, rows[0].available) == ("microvm-firecracker", False)
    assert "SWARM_MICROVM_MONITOR" in (rows[0].remedy or "")


def test_what_was_asked_for_is_never_replaced(tmp_path: Path, programs: Path, kvm: None) -> None:
    install(programs, "firecracker", "Firecracker v1.17.0")
    image = Image(tmp_path, "digest", "3.11", "6.1")
    with pytest.raises(SandboxUnavailable, match="QEMU"):
        probing.choose_monitor(Settings(home=tmp_path, microvm_monitor="qemu"), image)
    (programs / "firecracker").unlink()
    install(programs, "qemu-system-x86_64", "QEMU emulator version 7.2")
    with pytest.raises(SandboxUnavailable, match="Firecracker is not installed"):
        probing.choose_monitor(Settings(home=tmp_path, microvm_monitor="firecracker"), image)


def test_by_itself_qemu_is_preferred(tmp_path: Path, programs: Path, kvm: None) -> None:
    settings = Settings(home=tmp_path, microvm_accelerator="tcg")
    image = Image(tmp_path, "digest", "3.11", "6.1")
    install(programs, "firecracker", "Firecracker v1.17.0")
    assert probing.choose_monitor(settings, image).layer == "microvm-firecracker"
    assert probing.probe_microvm(settings)[0].detail == "Firecracker v1.17.0"
    install(programs, "qemu-system-x86_64", "QEMU emulator version 7.2")
    assert probing.choose_monitor(settings, image).layer == "microvm-tcg"


def test_without_kvm_firecracker_is_refused(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(programs, "firecracker", "Firecracker v1.17.0")
    monkeypatch.setattr(firecracker, "_KVM", str(tmp_path / "none"))
    image = Image(tmp_path, "digest", "3.11", "6.1")
    with pytest.raises(SandboxUnavailable, match="needs KVM"):
        probing.choose_monitor(Settings(home=tmp_path, microvm_monitor="firecracker"), image)
