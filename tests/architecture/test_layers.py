"""The rooms keep their order: import-linter's layers, exhaustive, and no cycle of modules."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from tests.architecture import rules
from tests.architecture.rules import ROOT

LINTER = Path(sys.executable).with_name("lint-imports")

SAMPLE_CONTRACT = """
[tool.importlinter]
root_package = "sample"

[[tool.importlinter.contracts]]
name = "order"
type = "layers"
containers = ["sample"]
exhaustive = true
layers = ["top", "ground"]
"""


def lint_imports(folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINTER), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(path)},
    )


def test_rooms_import_only_what_lies_below() -> None:
    result = lint_imports(ROOT, ROOT / "src")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_contract_is_exhaustive_and_places_every_room() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [one for one in contracts["contracts"] if one["type"] == "layers"]
    assert layers["exhaustive"] is True
    placed = {room for line in layers["layers"] for room in line.replace(" ", "").split("|")}
    rooms = {path.parent.name for path in (ROOT / "src" / "swarm").glob("*/__init__.py")}
    assert rooms == placed
    # `python -m swarm` only calls the command line. Catalog packages run inside sandboxes; they are
    # data to Swarm, which never imports them.
    assert layers["exhaustive_ignores"] == ["__main__", "catalog"]


@pytest.mark.parametrize(
    ("ground", "extra", "broken"),
    [("", None, False), ("from sample import top", None, True), ("", "unplaced", True)],
)
def test_the_linter_notices_a_break(
    tmp_path: Path, ground: str, extra: str | None, broken: bool
) -> None:
    (tmp_path / "pyproject.toml").write_text(SAMPLE_CONTRACT)
    rooms = {"top": "from sample import ground" if not ground else "", "ground": ground}
    if extra:
        rooms[extra] = ""
    for room, source in rooms.items():
        folder = tmp_path / "sample" / room
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(source)
    (tmp_path / "sample" / "__init__.py").touch()
    assert (lint_imports(tmp_path, tmp_path).returncode != 0) is broken


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = grimp.build_graph("swarm", cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert any(imports.values())
    assert rules.first_cycle(imports) is None


def test_a_circle_is_noticed() -> None:
    cycle = rules.first_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})
    assert cycle is not None
    assert set(cycle) == {"a", "b", "c"}
