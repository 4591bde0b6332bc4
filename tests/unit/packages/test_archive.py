"""Packing and reading back."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.kernel.errors import ConflictError, DefinitionError, NotFoundError, UnavailableError
from swarm.kernel.settings import Settings
from swarm.packages.archive import EARLIEST_TIME, extract, inspect_archive, pack, place_tree
from swarm.packages.ignoring import Ignored
from swarm.packages.paths import find_collisions, path_fault
from swarm.packages.reading import read_package

SETTINGS = Settings()
MANIFEST = "name: a\nversion: 1.2.3\nruntime:\n  type: python\n  entry: main.py\n"
HANDLER = "def handler(inputs):\n    return {}\n"


def write(folder: Path, files: dict[str, bytes], executable: frozenset[str] = frozenset()) -> Path:
    plain = {"agent.yaml": MANIFEST.encode(), "main.py": HANDLER.encode(), **files}
    for path, content in plain.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755 if path in executable else 0o640)
    return folder


def test_the_digest_is_that_of_the_content_alone(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"b/x": b"1", "a": b"2"})
    other = write(tmp_path / "other", {"a": b"2", "b/x": b"1", ".git/HEAD": b"ref"})
    os.utime(other / "a", (0, 0))
    (other / "a").chmod(0o604)
    (other / "empty").mkdir()
    digest = read_package(one, SETTINGS).digest
    assert read_package(other, SETTINGS).digest == digest
    assert len(digest) == 64

    (other / "a").chmod(0o744)
    assert read_package(other, SETTINGS).digest != digest
    (other / "a").chmod(0o644)
    (other / "a").write_bytes(b"3")
    assert read_package(other, SETTINGS).digest != digest
    (other / "a").rename(other / "c")
    (other / "c").write_bytes(b"2")
    assert read_package(other, SETTINGS).digest != digest


def test_the_digest_of_a_known_package_never_changes(tmp_path: Path) -> None:
    package = read_package(write(tmp_path, {"bin/é": b"x"}, frozenset({"bin/é"})), SETTINGS)
    assert package.digest == "e7020c95b4da006d5fcbfe3ff4849ce4ca543eab6ba982cdb708e2760800fe05"


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"b/é": b"1", "a": b"2" * 100}, frozenset({"a"}))
    other = write(tmp_path / "other", {"a": b"2" * 100, "b/é": b"1", "x.pyc": b""}, frozenset("a"))
    os.utime(other / "a", (1e9, 1e9))
    first = pack(read_package(one, SETTINGS), tmp_path / "first.apkg")
    second = pack(read_package(other, SETTINGS), tmp_path / "second.apkg")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a", "agent.yaml", "b/é", "main.py"]
        assert {info.date_time for info in archive.infolist()} == {EARLIEST_TIME}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_an_archive_is_named_after_its_agent_and_not_packed_again(tmp_path: Path) -> None:
    package = read_package(write(tmp_path, {}), SETTINGS)
    archive = pack(package, tmp_path)
    assert archive == tmp_path / "a-1.2.3.apkg"
    again = read_package(tmp_path, SETTINGS)
    assert again.digest == package.digest
    assert pack(again, tmp_path).read_bytes() == archive.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        archive.name,
        "agent.yaml",
        "main.py",
    ]


def test_a_file_changed_meanwhile_leaves_no_archive(tmp_path: Path) -> None:
    package = read_package(write(tmp_path / "p", {"a": b"1"}), SETTINGS)
    (tmp_path / "p/a").write_bytes(b"22")
    with pytest.raises(ConflictError, match="`a` was changed"):
        pack(package, tmp_path / "a.apkg")
    (tmp_path / "p/a").write_bytes(b"2")
    with pytest.raises(ConflictError, match="`a` was changed"):
        pack(package, tmp_path / "a.apkg")
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    package = read_package(write(tmp_path / "p", {}), SETTINGS)
    with pytest.raises(UnavailableError):
        pack(package, tmp_path / "none/a.apkg")
    archive = pack(package, tmp_path)
    with pytest.raises(UnavailableError):
        extract(archive, tmp_path / "none/out", SETTINGS)


def test_an_archive_is_inspected_without_unpacking(tmp_path: Path) -> None:
    package = read_package(write(tmp_path / "p", {"data": b"x" * 500}), SETTINGS)
    archive = pack(package, tmp_path)
    report = inspect_archive(archive, SETTINGS)
    assert report.definition == package.definition
    assert report.digest == package.digest
    assert report.files == package.files
    assert report.archive_bytes == archive.stat().st_size
    assert report.unpacked_bytes == package.size
    assert report.problems == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "p"]


def test_problems_of_the_manifest_are_in_the_report(tmp_path: Path) -> None:
    package = read_package(write(tmp_path / "p", {}), SETTINGS)
    (tmp_path / "p/main.py").write_text("x = 1\n")
    archive = tmp_path / "bad.apkg"
    with zipfile.ZipFile(archive, "w") as bad:
        for file in package.files:
            bad.write(tmp_path / "p" / file.path, file.path)
    report = inspect_archive(archive, SETTINGS)
    assert report.definition is None
    (problem,) = report.problems
    assert problem.where == f"{archive}/agent.yaml:5:3"
    assert "no `handler`" in problem.message
    with pytest.raises(DefinitionError):
        read_package(archive, SETTINGS)


def test_an_archive_made_by_another_tool_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "wild.apkg"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wild:
        wild.mkdir("lib")
        wild.writestr("agent.yaml", MANIFEST)
        wild.writestr("main.py", HANDLER)
        wild.writestr("lib/__pycache__/x.pyc", b"left out")
    package = read_package(archive, SETTINGS)
    assert package.is_archive
    assert [file.path for file in package.files] == ["agent.yaml", "main.py"]
    assert package.read("main.py").decode() == HANDLER
    folder = write(tmp_path / "p", {})
    assert read_package(folder, SETTINGS).digest == package.digest


def test_a_tree_that_cannot_be_completed_leaves_nothing(tmp_path: Path) -> None:
    package = read_package(write(tmp_path / "p", {"z": b"1"}), SETTINGS)
    (tmp_path / "p/z").write_bytes(b"2")
    with pytest.raises(ConflictError):
        place_tree(package.contents, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_nothing_in_the_way_is_overwritten(tmp_path: Path) -> None:
    archive = pack(read_package(write(tmp_path / "p", {}), SETTINGS), tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    for taken in ("p", "file", "dangling"):
        with pytest.raises(ConflictError):
            extract(archive, tmp_path / taken, SETTINGS)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(NotFoundError):
        extract(tmp_path / "none.apkg", tmp_path / "out", SETTINGS)
    assert not (tmp_path / "elsewhere").exists()


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
PATHS = (
    st.lists(NAMES, min_size=1, max_size=3)
    .map("/".join)
    .filter(
        lambda path: (
            path_fault(path) is None
            and not Ignored().leaves_out(path)
            and path not in ("agent.yaml", "main.py", "requirements.txt", "requirements.lock")
        )
    )
)


@given(st.dictionaries(PATHS, st.tuples(st.binary(max_size=100), st.booleans()), max_size=6))
def test_packed_and_unpacked_a_package_keeps_its_digest(
    files: dict[str, tuple[bytes, bool]],
) -> None:
    everything = {"agent.yaml", "main.py", *files}
    if find_collisions(sorted(everything)):
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        executable = frozenset(path for path, (_, runs) in files.items() if runs)
        contents = {path: content for path, (content, _) in files.items()}
        package = read_package(write(root / "p", contents, executable), SETTINGS)
        archive = pack(package, root / "p.apkg")
        packed = read_package(archive, SETTINGS)
        unpacked = read_package(extract(archive, root / "out", SETTINGS), SETTINGS)
        assert package.digest == packed.digest == unpacked.digest
        assert package.files == packed.files == unpacked.files
        assert pack(packed, root / "q.apkg").read_bytes() == archive.read_bytes()
