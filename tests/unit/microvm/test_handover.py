"""Files that a hostile guest hands out."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swarm.kernel.json import JsonObject
from swarm.sandbox.microvm.handover import Handover, HandoverError


def encoded(path: bytes) -> str:
    return base64.b64encode(path).decode()


def message(event: str, path: bytes, **more: object) -> JsonObject:
    return {"event": event, "path": encoded(path), **more}  # type: ignore[dict-item]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    place = tmp_path / "outputs"
    place.mkdir()
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_folders_files_and_links_arrive(folder: int, tmp_path: Path) -> None:
    handover = Handover(folder, 100, 10)
    handover.take_message(message("folder", b"a"))
    handover.take_message(message("file", b"a/b", size=6))
    handover.take_content(b"one")
    handover.take_content(b"two")
    handover.take_message(message("file", b"none", size=0))
    handover.take_message(message("link", b"l", target=encoded(b"../secret")))
    handover.take_message(message("other", b"pipe"))
    place = tmp_path / "outputs"
    assert (place / "a" / "b").read_bytes() == b"onetwo"
    assert (place / "none").read_bytes() == b""
    assert (place / "l").is_symlink()
    assert handover.skipped == ["pipe"]


@pytest.mark.parametrize(
    "path", [b"../x", b"a/../../x", b"/etc/x", b"", b".", b"a//b", b"a\0b", b"x" * 256, b"l/x"]
)
def test_no_path_leads_out(folder: int, tmp_path: Path, path: bytes) -> None:
    handover = Handover(folder, 100, 10)
    handover.take_message(message("link", b"l", target=encoded(os.fsencode(tmp_path))))
    with pytest.raises(HandoverError):
        handover.take_message(message("file", path, size=1))
    assert not (tmp_path / "x").exists()


def test_what_passes_a_limit_is_refused(folder: int) -> None:
    with pytest.raises(HandoverError, match="bytes"):
        Handover(folder, 10, 10).take_message(message("file", b"a", size=11))
    handover = Handover(folder, 10, 1)
    handover.take_message(message("folder", b"one"))
    with pytest.raises(HandoverError, match="more files"):
        handover.take_message(message("folder", b"two"))


def test_content_must_be_what_was_announced(folder: int) -> None:
    handover = Handover(folder, 10, 10)
    handover.take_message(message("file", b"a", size=2))
    with pytest.raises(HandoverError, match="longer"):
        handover.take_content(b"abc")
    with pytest.raises(HandoverError, match="incomplete"):
        handover.take_message(message("folder", b"b"))
    handover.close()


@example({"path": "\x80"})
@given(st.dictionaries(st.text(max_size=8), st.text(max_size=12) | st.integers() | st.none()))
def test_nonsense_is_refused_and_harms_nothing(nonsense: dict[str, str | int | None]) -> None:
    handover = Handover(-1, 10, 10)
    with pytest.raises(HandoverError):
        handover.take_message({**nonsense, "event": "file"})  # type: ignore[dict-item]
