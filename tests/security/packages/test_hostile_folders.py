"""Folders whose files lead elsewhere, or change while they are read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from swarm.kernel.errors import ConflictError, DefinitionError, NotFoundError, UnavailableError
from swarm.kernel.settings import Settings
from swarm.packages.folders import read_folder, write_tree
from swarm.packages.ignoring import Ignored

SETTINGS = Settings(max_package_mb=1, max_package_files=10)


def faults(folder: Path, ignored: str = "", settings: Settings = SETTINGS) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        read_folder(folder, Ignored(ignored), settings)
    assert all(problem.remedy for problem in caught.value.problems)
    return [problem.message for problem in caught.value.problems]


def test_links_are_refused_and_those_that_leave_are_called_so(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "a.py").write_text("")
    (tmp_path / "lib/inside").symlink_to("../a.py")
    (tmp_path / "lib/outside").symlink_to("../../secret")
    (tmp_path / "absolute").symlink_to("/etc/passwd")
    (tmp_path / "folder").symlink_to("/etc")
    said = faults(tmp_path)
    assert said == [
        "`absolute` is a link that leaves the package, to `/etc/passwd`",
        "`folder` is a link that leaves the package, to `/etc`",
        "`lib/inside` is a link, to `../a.py`; a package holds plain files only",
        "`lib/outside` is a link that leaves the package, to `../../secret`",
    ]


def test_a_link_that_is_left_out_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    (tmp_path / "data").symlink_to("/etc")
    (tmp_path / ".venv").symlink_to("/etc")
    contents = read_folder(tmp_path, Ignored("data\n"), SETTINGS)
    assert [file.path for file in contents.files] == ["a.py"]


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        said = faults(tmp_path)
    assert [message.split()[0] for message in said] == ["`fifo`", "`socket`"]


def test_names_that_cannot_be_packed_are_all_named(tmp_path: Path) -> None:
    for name in (b"bad\xff", b"back\\slash", b"new\nline", b"README", b"readme"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    said = faults(tmp_path)
    assert [message.split()[0] for message in said] == [
        "`back\\slash`",
        "`bad\\xff`",
        "`new\\nline`",
        "`readme`",
    ]


def test_limits_stop_the_walk(tmp_path: Path) -> None:
    for number in range(11):
        (tmp_path / f"{number:02}").write_bytes(b"x")
    assert faults(tmp_path) == ["`10` makes the package hold more than 10 files"]
    (tmp_path / "05").write_bytes(bytes(1024 * 1024))
    assert faults(tmp_path) == ["`05` makes the package larger than 1 MiB"]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_folder(tmp_path / "none", Ignored(), SETTINGS)


def test_a_file_that_grows_shrinks_changes_or_goes_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    file = source / "a"
    file.write_bytes(b"first")
    contents = read_folder(source, Ignored(), SETTINGS)
    for number, content in enumerate((b"first!", b"fir", b"other")):
        file.write_bytes(content)
        target = tmp_path / f"target{number}"
        target.mkdir()
        with pytest.raises(ConflictError, match="was changed"):
            write_tree(contents, target)
    file.unlink()
    with pytest.raises(ConflictError, match="was changed"):
        write_tree(contents, tmp_path / "target0")


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    source, other, target = tmp_path / "source", tmp_path / "other", tmp_path / "target"
    for folder in (source / "lib", other, target):
        folder.mkdir(parents=True)
    (source / "lib/a").write_bytes(b"same")
    (other / "a").write_bytes(b"same")
    contents = read_folder(source, Ignored(), SETTINGS)
    (source / "lib/a").unlink()
    (source / "lib").rmdir()
    (source / "lib").symlink_to(other)
    with pytest.raises((ConflictError, UnavailableError)):
        write_tree(contents, target)


def test_a_fifo_in_a_files_place_does_not_hang(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "a").write_bytes(b"")
    contents = read_folder(source, Ignored(), SETTINGS)
    (source / "a").unlink()
    os.mkfifo(source / "a")
    with pytest.raises(ConflictError):
        write_tree(contents, target)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "a").chmod(0)
    with pytest.raises(UnavailableError) as caught:
        read_folder(tmp_path, Ignored(), SETTINGS)
    assert caught.value.where == str(tmp_path / "a")
