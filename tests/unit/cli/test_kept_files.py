"""Readable copies of the files that a run gave."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.cli.files import file_values, keep_files, unique_name
from swarm.client.local_files import MAX_NAME_BYTES, safe_name
from swarm.definitions.files import FileValue
from swarm.kernel.errors import UnavailableError
from swarm.kernel.home import Home
from swarm.store.artifacts import LocalArtifacts


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("report.md", "report.md"),
        ("../../etc/passwd", "passwd"),
        ("a/b\\c.txt", "c.txt"),
        (".bashrc", "bashrc"),
        ("..", "file"),
        ("", "file"),
        ("a\x1b[2J\n.md", "a_[2J_.md"),
        ("näme 漢.html", "näme 漢.html"),
    ],
)
def test_names_lead_nowhere(given: str, safe: str) -> None:
    assert safe_name(given) == safe


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_any_name_becomes_one_component(name: str) -> None:
    safe = safe_name(name)
    assert safe not in ("", ".", "..")
    assert "/" not in safe
    assert not safe.startswith(".")
    assert len(safe.encode()) <= MAX_NAME_BYTES + len("file")


def test_other_content_gets_another_name() -> None:
    taken: dict[str, str] = {}
    first, other = (FileValue(f"sha256:{digit * 64}", "a.md") for digit in "01")
    assert unique_name(first, "x", taken) == "a.md"
    assert unique_name(first, "y", taken) == "a.md"
    assert unique_name(other, "y", taken) == "y-a.md"
    third = FileValue(f"sha256:{'2' * 64}", "a.md")
    assert unique_name(third, "y", taken) == "2-y-a.md"


def test_file_values_are_found_wherever_they_are() -> None:
    value = {"$artifact": "sha256:" + "0" * 64, "name": "x"}
    found = [place for place, _ in file_values({"a": value, "b": [1, {"c": value}], "d": "x"})]
    assert found == ["a", "b[1].c"]


async def test_copies_are_made_and_edits_are_left_alone(tmp_path: Path) -> None:
    artifacts = LocalArtifacts(tmp_path / "home" / "artifacts")
    reference = await artifacts.put_bytes(b"# Report\n")
    outputs = {"report": FileValue(reference, "report.md", 9, "text/markdown").as_json()}
    home, folder = Home(tmp_path / "home"), tmp_path / "out"

    (kept,) = await keep_files(outputs, artifacts, home, folder, replace=False)
    assert kept.path == folder / "report.md"
    assert kept.path.read_bytes() == b"# Report\n"

    kept.path.write_text("edited")
    assert artifacts.path(reference).read_bytes() == b"# Report\n"
    await keep_files(outputs, artifacts, home, folder, replace=False)
    assert kept.path.read_text() == "edited"
    await keep_files(outputs, artifacts, home, folder, replace=True)
    assert kept.path.read_bytes() == b"# Report\n"
    assert [path.name for path in folder.iterdir()] == ["report.md"]


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    artifacts = LocalArtifacts(tmp_path / "artifacts")
    reference = await artifacts.put_bytes(b"x")
    (tmp_path / "file").touch()
    outputs = {"report": FileValue(reference, "x").as_json()}
    with pytest.raises(UnavailableError, match="cannot be copied"):
        await keep_files(
            outputs, artifacts, Home(tmp_path), tmp_path / "file" / "below", replace=False
        )
