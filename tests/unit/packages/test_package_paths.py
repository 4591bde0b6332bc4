"""Which paths a package may hold."""

from __future__ import annotations

import posixpath
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swarm.packages.paths import find_collisions, path_fault, printable


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "no name"),
        ("/etc/passwd", "absolute"),
        ("../x", "`..`"),
        ("a/../../x", "`..`"),
        ("a/..", "`..`"),
        ("./a", "plain relative"),
        ("a//b", "plain relative"),
        ("a/", "plain relative"),
        ("a\\b", "backslash"),
        ("C:/x", "drive letter"),
        ("c:x", "drive letter"),
        ("a\nb", "control character"),
        ("a\x00b", "control character"),
        ("a/\x85", "control character"),
        ("\udc80", "not UTF-8"),
        ("x" * 256, "longer than 255 bytes"),
        ("é" * 128, "longer than 255 bytes"),
        ("/".join(["x" * 200] * 6), "longer than 1024 bytes"),
        ("/".join("x" * 33), "32 folders deep"),
    ],
)
def test_what_no_package_holds_is_said(path: str, said: str) -> None:
    assert said in (path_fault(path) or "")


@pytest.mark.parametrize("path", ["a", "a b/c.py", "..a", "a..", "日本/é.txt", ".hidden", "ab:c"])
def test_odd_but_plain_names_pass(path: str) -> None:
    assert path_fault(path) is None


@given(st.text(max_size=80))
@example("..")
@example("a/b/../../..")
def test_a_path_that_passes_stays_below_any_folder(path: str) -> None:
    if path_fault(path) is None:
        joined = posixpath.normpath(posixpath.join("/base", path))
        assert joined == f"/base/{path}"


@pytest.mark.parametrize(
    ("paths", "pair"),
    [
        (["README", "readme"], ("README", "readme")),
        (["Lib/a", "lib/b"], ("Lib", "lib")),
        (["é", "e\u0301"], ("é", "e\u0301")),
        (["straße", "STRASSE"], ("straße", "STRASSE")),
        (["a", "a/b"], ("a", "a/b")),
        (["a/b", "a"], ("a", "a/b")),
    ],
)
def test_spellings_that_a_file_system_may_merge_collide(
    paths: list[str], pair: tuple[str, str]
) -> None:
    assert find_collisions(paths) == [pair]


@given(st.lists(st.text(alphabet="abAB/é", min_size=1, max_size=6), unique=True, max_size=8))
def test_without_a_collision_all_paths_differ_once_folded(paths: list[str]) -> None:
    plain = [path for path in paths if path_fault(path) is None]
    folded = {unicodedata.normalize("NFC", path).casefold() for path in plain}
    if not find_collisions(plain):
        assert len(folded) == len(plain)
    for path in plain:
        assert find_collisions([path]) == []


@given(st.text())
def test_what_is_printed_is_printable(text: str) -> None:
    assert printable(text).isprintable()


def test_bytes_that_are_no_text_are_shown_escaped() -> None:
    assert printable("a\udcff\x1b[31m") == "a\\xff\\x1b[31m"
