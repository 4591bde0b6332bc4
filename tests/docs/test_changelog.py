"""The changelog keeps to its format (Keep a Changelog 1.1.0)."""

from __future__ import annotations

import re

import pytest

from swarm import __version__
from tests.architecture.rules import ROOT

KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
RELEASE = re.compile(r"## \[(Unreleased|\d+\.\d+\.\d+)\](?: - (\d{4}-\d{2}-\d{2}))?")


def faults(text: str) -> list[str]:
    """What is wrong with a changelog, as ``line: fault``."""
    found: list[str] = []
    releases: list[str] = []
    kind = None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("## "):
            release = RELEASE.fullmatch(line)
            if release is None:
                found.append(f"{number}: not a release: {line}")
                continue
            if (release[1] == "Unreleased") is (release[2] is not None):
                found.append(f"{number}: a release has a date, and only a release")
            releases.append(release[1])
            kind = None
        elif line.startswith("### "):
            kind = line.removeprefix("### ")
            if kind not in KINDS:
                found.append(f"{number}: {kind} is not one of {', '.join(KINDS)}")
        elif line.startswith("- ") and kind is None:
            found.append(f"{number}: a change stands under a kind of change")
    if releases[:1] != ["Unreleased"]:
        found.append("1: the first section is [Unreleased]")
    numbers = [tuple(map(int, name.split("."))) for name in releases[1:]]
    if numbers != sorted(set(numbers), reverse=True):
        found.append("1: the newest release comes first")
    return found


def test_the_changelog_keeps_its_format() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert faults(text) == []
    assert "\n- " in text


def test_the_version_is_the_same_in_both_places() -> None:
    """pyproject.toml and the package must not drift apart."""
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


RIGHT = "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-31\n\n### Added\n\n- It.\n"


def test_the_format_is_accepted() -> None:
    assert faults(RIGHT) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("## [Unreleased]\n", ""),
        (" - 2026-01-31", ""),
        ("### Added", "### New"),
        ("### Added\n", ""),
        ("## [0.1.0]", "## 0.1.0"),
        ("- It.", "- It.\n\n## [0.2.0] - 2026-02-01"),
    ],
)
def test_a_break_of_the_format_is_noticed(right: str, wrong: str) -> None:
    assert faults(RIGHT.replace(right, wrong)) != []
