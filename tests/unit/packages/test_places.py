"""What lies at a path, and what is said when it cannot be told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm.kernel.errors import NotFoundError, UnavailableError
from swarm.packages.places import Kind, absolute, children_with, kind_of


def test_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("none")
    os.mkfifo(tmp_path / "fifo")
    assert kind_of(tmp_path) is Kind.FOLDER
    assert kind_of(tmp_path / "file") is Kind.FILE
    assert kind_of(tmp_path / "link") is Kind.FILE
    assert kind_of(tmp_path / "fifo") is Kind.OTHER
    for missing in ("none", "dangling", "file/below", "nul\0"):
        assert kind_of(tmp_path / missing) is Kind.NOTHING


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / ("x" * 300)):
        with pytest.raises(UnavailableError) as caught:
            kind_of(path)
        assert caught.value.remedy


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(UnavailableError, match="working directory"):
        absolute(Path("x"))


def test_children_are_those_that_hold_the_file(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/agent.yaml").write_text("")
    (tmp_path / "b/agent.yaml").write_text("")
    (tmp_path / "d").write_text("")
    assert children_with(tmp_path, "agent.yaml") == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(NotFoundError):
        children_with(tmp_path / "d", "agent.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_child_that_cannot_be_looked_into_is_kept_to_be_told(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert children_with(tmp_path, "agent.yaml") == [tmp_path / "closed"]
