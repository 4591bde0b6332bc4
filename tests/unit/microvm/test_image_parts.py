"""The parts of an image that can be told from their inputs alone."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from swarm.kernel.errors import UnavailableError
from swarm.sandbox.microvm.debian import merged
from swarm.sandbox.microvm.initramfs import depends_of, find_modules, initramfs
from swarm.sandbox.microvm.squashfs import EPOCH, write_tar


def module(depends: str) -> bytes:
    return b"\x7fELF...\0license=GPL\0depends=" + depends.encode() + b"\0retpoline=Y\0"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./bin/sh", "usr/bin/sh"),
        ("./usr/bin/sh", "usr/bin/sh"),
        ("./lib64/ld.so", "usr/lib64/ld.so"),
        ("./", ""),
        ("./etc/hosts", "etc/hosts"),
    ],
)
def test_folders_of_the_root_are_merged_into_usr(name: str, path: str) -> None:
    assert merged(name) == path


def test_a_package_cannot_reach_out_of_the_root() -> None:
    with pytest.raises(UnavailableError):
        merged("./usr/../../etc/passwd")


def test_modules_are_loaded_after_those_that_they_need(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "top-one.ko").write_bytes(module("middle,base"))
    (tmp_path / "middle.ko").write_bytes(module("base"))
    (tmp_path / "base.ko").write_bytes(module(""))
    found = find_modules(tmp_path, ["top_one", "built_in", "base"])
    assert [name for name, _ in found] == ["base", "middle", "top_one"]
    assert depends_of(module("a-b,c")) == ["a_b", "c"]


def test_compressed_modules_are_refused(tmp_path: Path) -> None:
    (tmp_path / "base.ko.xz").write_bytes(b"")
    with pytest.raises(UnavailableError, match="compressed"):
        find_modules(tmp_path)


def test_the_initial_file_system_is_what_cpio_expects(tmp_path: Path) -> None:
    data = initramfs(b"program", [("base", module(""))])
    assert data == initramfs(b"program", [("base", module(""))])
    assert data.startswith(b"070701")
    assert len(data) % 4 == 0
    assert b"modules/order\0" in data
    assert data.rstrip(b"\0").endswith(b"TRAILER!!!")


def test_a_tar_stream_holds_nothing_of_its_maker(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "file").write_text("text")
    (source / "folder" / "file").chmod(0o4711)
    (source / "link").symlink_to("/etc/passwd")
    subprocess.run(["mkfifo", source / "pipe"], check=True)
    stream = io.BytesIO()
    write_tar({"in/side": source}, stream, owner=7)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        members = {member.name: member for member in archive}
    names = ["in", "in/side", "in/side/folder", "in/side/folder/file", "in/side/link"]
    assert sorted(members) == names
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} <= {
        (7, 7, EPOCH)
    }
    assert members["in/side/folder/file"].mode == 0o755
    assert members["in/side/link"].linkname == "/etc/passwd"
