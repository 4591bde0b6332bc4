"""The wheel holds the whole product and nothing else. Run by `make test`, which installs it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

from tests.architecture import rules
from tests.architecture.rules import ROOT

needs_wheel = pytest.mark.skipif(
    not os.environ.get("SWARM_TEST_WHEEL"), reason="the wheel is installed by make test only"
)


def differences(shipped: Iterable[str], sources: Iterable[str]) -> list[str]:
    """What the wheel lacks and what it has too much; the paths are relative to ``src``."""
    shipped, sources = set(shipped), set(sources)
    return sorted(
        [f"lacks {path}" for path in sources - shipped]
        + [f"should not hold {path}" for path in shipped - sources]
    )


def test_a_difference_is_noticed() -> None:
    assert differences(["a", "tests/b"], ["a", "c"]) == ["lacks c", "should not hold tests/b"]


@needs_wheel
def test_the_wheel_holds_every_source_and_nothing_else() -> None:
    files = metadata.files("swarm-runtime")
    assert files is not None
    shipped = [
        str(path)
        for path in files
        if path.suffix != ".pyc" and ".." not in path.parts and ".dist-info" not in str(path)
    ]
    sources = [
        str(path.relative_to(ROOT / "src"))
        for path in rules.tracked_files()
        if path.is_relative_to(ROOT / "src")
    ]
    assert differences(shipped, sources) == []


@needs_wheel
@pytest.mark.parametrize("kind", ["agents", "workflows", "templates"])
def test_the_catalog_is_in_the_wheel_with_its_permissions(kind: str) -> None:
    """A command agent's program must stay executable on its way through the wheel."""
    files = metadata.files("swarm-runtime") or []
    here = [path for path in files if path.parts[:3] == ("swarm", "catalog", kind)]
    assert here
    for path in here:
        source = ROOT / "src" / path
        installed = Path(str(path.locate()))
        if path.suffix == ".pyc":
            continue
        assert installed.read_bytes() == source.read_bytes()
        assert bool(installed.stat().st_mode & 0o100) == bool(source.stat().st_mode & 0o100)


@needs_wheel
def test_the_commands_are_installed() -> None:
    names = {entry.name for entry in metadata.distribution("swarm-runtime").entry_points}
    assert names == {"swarm", "swarm-agent", "swarm-workflow", "swarm-run"}
