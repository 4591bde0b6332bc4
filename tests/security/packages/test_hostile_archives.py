"""Archives made to mislead: each is refused with one message, and nothing is written."""

from __future__ import annotations

import io
import random
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.kernel.errors import ArchiveError
from swarm.kernel.settings import Settings
from swarm.packages.archive import extract

SETTINGS = Settings(max_package_mb=1, max_package_files=50)


def archive_bytes(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def with_mode(name: str, mode: int, content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo(name)
        member.create_system = 3
        member.external_attr = mode << 16
        archive.writestr(member, content)
    return buffer.getvalue()


def refused(data: bytes, folder: Path, settings: Settings = SETTINGS) -> str:
    """Unpack ``data``; return what was said and make sure that nothing else came of it."""
    archive = folder / "x.apkg"
    archive.write_bytes(data)
    with pytest.raises(ArchiveError) as caught:
        extract(archive, folder / "out", settings)
    assert [path.name for path in folder.iterdir()] == ["x.apkg"]
    assert caught.value.where == str(archive)
    assert caught.value.remedy
    return caught.value.message


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil", "`..`"),
        ("a/../../evil", "`..`"),
        ("/etc/evil", "absolute"),
        ("C:/evil", "drive letter"),
        ("a\x01b", "control character"),
        ("a//b", "plain relative"),
        ("/", "no name"),
        ("../", "`..`"),
    ],
)
def test_names_that_leave_the_folder(name: str, said: str, tmp_path: Path) -> None:
    assert said in refused(archive_bytes((name, b"")), tmp_path)


def test_a_backslash(tmp_path: Path) -> None:
    data = replaced(archive_bytes(("..!evil", b"x")), b"..!evil", b"..\\evil")
    assert "backslash" in refused(data, tmp_path)


def test_a_name_cut_by_a_nul(tmp_path: Path) -> None:
    data = replaced(archive_bytes(("main.py!x", b"x")), b"main.py!x", b"main.py\0x")
    assert "control character" in refused(data, tmp_path)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    data = replaced(archive_bytes(("aaa", b"x")), b"aaa", b"a\xe9a")
    assert "not UTF-8" in refused(data, tmp_path)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (stat.S_IFLNK | 0o777, "is a link"),
        (stat.S_IFCHR | 0o666, "device"),
        (stat.S_IFBLK | 0o666, "device"),
        (stat.S_IFIFO | 0o666, "FIFO"),
        (stat.S_IFSOCK | 0o666, "socket"),
        (stat.S_IFDIR | 0o755, "file and a folder"),
    ],
)
def test_what_is_no_plain_file(mode: int, said: str, tmp_path: Path) -> None:
    assert said in refused(with_mode("a", mode, b"/etc/passwd"), tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "a"], "twice"),
        (["a/", "a/"], "twice"),
        (["Main.py", "main.py"], "collides"),
        (["é", "e\u0301"], "collides"),
        (["a", "a/b"], "collides"),
        (["a/", "a"], "collides"),
        (["A/", "a/b"], "collides"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_overwrite_each_other(names: list[str], said: str, tmp_path: Path) -> None:
    assert said in refused(archive_bytes(*((name, b"") for name in names)), tmp_path)


def test_a_folder_and_a_file_in_it_may_both_be_listed(tmp_path: Path) -> None:
    (tmp_path / "x.apkg").write_bytes(archive_bytes(("a/", b""), ("a/x", b"1"), ("a/y", b"2")))
    extract(tmp_path / "x.apkg", tmp_path / "out", SETTINGS)
    assert (tmp_path / "out/a/y").read_bytes() == b"2"


def test_encrypted_members(tmp_path: Path) -> None:
    data = bytearray(archive_bytes(("a", b"x")))
    for offset in (6, data.index(b"PK\1\2") + 8):
        data[offset] |= 1
    assert "encrypted" in refused(bytes(data), tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods(method: int, tmp_path: Path) -> None:
    assert "method" in refused(archive_bytes(("a", b"x"), method=method), tmp_path)


def test_a_bomb_by_its_declared_size(tmp_path: Path) -> None:
    data = archive_bytes(("a", bytes(2 * 1024 * 1024)))
    assert "unpacks to 2097152 bytes" in refused(data, tmp_path)


def test_a_bomb_by_its_ratio(tmp_path: Path) -> None:
    data = archive_bytes(("a", bytes(32 * 1024 * 1024)))
    settings = Settings(max_package_mb=64)
    assert "200 times its size" in refused(data, tmp_path, settings)


def test_a_bomb_that_declares_little(tmp_path: Path) -> None:
    content = bytes(600_000)
    data = bytearray(archive_bytes(("a", content)))
    small = struct.pack("<L", 10)
    for offset in (22, data.index(b"PK\1\2") + 24):
        assert data[offset : offset + 4] == struct.pack("<L", len(content))
        data[offset : offset + 4] = small
    assert "larger than the 10 bytes" in refused(bytes(data), tmp_path)


def test_a_bomb_by_its_count(tmp_path: Path) -> None:
    data = archive_bytes(*((f"{number}", b"") for number in range(51)))
    assert "51 files" in refused(data, tmp_path)
    data = archive_bytes(*((f"{number}", b"") for number in range(101)))
    assert "101 entries" in refused(data, tmp_path)


def test_a_file_larger_than_any_package(tmp_path: Path) -> None:
    settings = Settings(max_package_mb=1, max_package_files=1)
    data = archive_bytes(("a", random.Random(0).randbytes(2 * 1024 * 1024)))
    assert "a package may have 1 MiB" in refused(data, tmp_path, settings)


def test_stray_bytes_anywhere(tmp_path: Path) -> None:
    data = archive_bytes(("a", b"x" * 100), ("b", b"y"))
    directory = data.index(b"PK\1\2")
    second = data.index(b"PK\3\4", 4)
    assert "does not end" in refused(data + b"\0", tmp_path)
    assert "directory" in refused(b"junk" + data, tmp_path)
    for place in (second, directory):
        padded = bytearray(data[:place] + b"junk" + data[place:])
        end = padded.index(b"PK\5\6")
        padded[end + 16 : end + 20] = struct.pack("<L", directory + 4)
        if place == second:
            entry = padded.rindex(b"PK\1\2")
            padded[entry + 42 : entry + 46] = struct.pack("<L", second + 4)
        assert "stray or shared bytes after" in refused(bytes(padded), tmp_path)


def test_bytes_before_the_first_member(tmp_path: Path) -> None:
    data = bytearray(b"junk" + archive_bytes(("a", b"x")))
    entry, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    data[entry + 42 : entry + 46] = struct.pack("<L", 4)
    data[end + 16 : end + 20] = struct.pack("<L", entry)
    assert "stray or shared bytes before" in refused(bytes(data), tmp_path)


def test_a_comment_that_hides_an_archive(tmp_path: Path) -> None:
    buffer = io.BytesIO(archive_bytes(("a", b"x")))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = archive_bytes(("b", b"y"))[:-22]
    assert "does not end" in refused(buffer.getvalue(), tmp_path)


def test_entries_that_share_their_bytes(tmp_path: Path) -> None:
    data = bytearray(archive_bytes(("aa", b"x"), ("ab", b"x")))
    second = data.rindex(b"PK\1\2")
    data[second + 42 : second + 46] = struct.pack("<L", 0)
    assert "stray or shared" in refused(bytes(data), tmp_path)


def test_a_header_that_contradicts_the_directory(tmp_path: Path) -> None:
    data = archive_bytes(("main.py", b"x"))
    directory = data.index(b"PK\1\2")
    other = data[:directory].replace(b"main.py", b"evil.py") + data[directory:]
    assert "contradicts" in refused(other, tmp_path)


def test_a_zip64_directory_behind_the_first(tmp_path: Path) -> None:
    data = archive_bytes(("a", b"x"))
    end = len(data) - 22
    locator = b"PK\6\7" + bytes(16)
    length, offset = struct.unpack("<LL", data[end + 12 : end + 20])
    tail = data[end : end + 12] + struct.pack("<LL", length + len(locator), offset) + b"\0\0"
    assert "zip64" in refused(data[:end] + locator + tail, tmp_path)


def test_fewer_entries_than_declared(tmp_path: Path) -> None:
    data = bytearray(archive_bytes(("a", b"x")))
    end = len(data) - 22
    data[end + 8 : end + 12] = struct.pack("<HH", 2, 2)
    assert "declares 2" in refused(bytes(data), tmp_path)


def test_content_that_was_changed(tmp_path: Path) -> None:
    data = archive_bytes(("a", b"hello"), method=zipfile.ZIP_STORED)
    assert "checksum" in refused(replaced(data, b"hello", b"jello"), tmp_path)


def test_bytes_behind_the_end_of_a_deflated_member(tmp_path: Path) -> None:
    content = b"hello"
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(content) + packer.flush()
    data = bytearray(archive_bytes(("a", packed + b"hidden"), method=zipfile.ZIP_STORED))
    crc, size = struct.pack("<L", zlib.crc32(content)), struct.pack("<L", len(content))
    entry = data.index(b"PK\1\2")
    for method, checksum, length in ((8, 14, 22), (entry + 10, entry + 16, entry + 24)):
        data[method] = zipfile.ZIP_DEFLATED
        data[checksum : checksum + 4] = crc
        data[length : length + 4] = size
    assert "behind its end" in refused(bytes(data), tmp_path)


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip at all, but long enough", bytes(22)])
def test_what_is_no_archive(data: bytes, tmp_path: Path) -> None:
    assert "not an .apkg" in refused(data, tmp_path)


def test_a_folder_in_an_archives_place(tmp_path: Path) -> None:
    (tmp_path / "x.apkg").mkdir()
    with pytest.raises(ArchiveError, match="not a file"):
        extract(tmp_path / "x.apkg", tmp_path / "out", SETTINGS)


SEEDS = [
    archive_bytes(("agent.yaml", b"name: a\n" * 40), ("lib/main.py", b"x = 1\n" * 20)),
    archive_bytes(("agent.yaml", b"name: a\n"), ("lib/", b""), method=zipfile.ZIP_STORED),
]
NAMES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["../x", "/x", "a/", "a", "A", "a/b", "é", "e\u0301", "C:x", "a\\b", ".git/x"]),
)


@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    cut=st.tuples(st.integers(0, 2000), st.integers(0, 8)),
    insert=st.tuples(st.integers(0, 2000), st.binary(max_size=8)),
)
def test_a_damaged_archive_gives_an_archive_error_or_its_files(
    seed: bytes,
    changes: list[tuple[int, int]],
    cut: tuple[int, int],
    insert: tuple[int, bytes],
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    place = cut[0] % len(data)
    del data[place : place + cut[1]]
    place = insert[0] % (len(data) + 1)
    data[place:place] = insert[1]
    unpack_or_refuse(bytes(data))


@given(st.lists(st.tuples(NAMES, st.binary(max_size=30)), max_size=5), st.integers(0, 0xFFFF))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_any_names_and_modes_give_an_archive_error_or_their_files(
    members: list[tuple[str, bytes]], mode: int
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            try:
                member = zipfile.ZipInfo(name)
                member.external_attr = mode << 16
                archive.writestr(member, content)
            except UnicodeEncodeError:
                continue
    unpack_or_refuse(buffer.getvalue())


@given(st.binary(max_size=200))
def test_any_bytes_give_an_archive_error(data: bytes) -> None:
    unpack_or_refuse(data)


def unpack_or_refuse(data: bytes) -> None:
    """Unpack ``data``: either all of it comes out, below the folder, or nothing at all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "x.apkg").write_bytes(data)
        try:
            extract(folder / "x.apkg", folder / "out", SETTINGS)
        except ArchiveError:
            assert [path.name for path in folder.iterdir()] == ["x.apkg"]
            return
        assert sorted(path.name for path in folder.iterdir()) == ["out", "x.apkg"]
        for path in (folder / "out").rglob("*"):
            assert path.resolve().is_relative_to((folder / "out").resolve())
            assert not path.is_symlink()
