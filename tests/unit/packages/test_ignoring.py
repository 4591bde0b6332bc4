"""What is left out of a package."""

from __future__ import annotations

import pytest

from swarm.kernel.errors import DefinitionError
from swarm.packages.ignoring import Ignored


@pytest.mark.parametrize(
    "path",
    [
        ".git/HEAD",
        ".git",
        "lib/.git",
        "__pycache__/main.cpython-311.pyc",
        "lib/__pycache__/x",
        "a.pyc",
        "lib/a.pyc",
        "node_modules/a/index.js",
        "web/node_modules/a/index.js",
        ".venv/bin/python",
        ".DS_Store",
        "img/.DS_Store",
        ".swarmignore",
        "echo-1.0.0.apkg",
    ],
)
def test_build_leavings_are_always_left_out(path: str) -> None:
    assert Ignored().leaves_out(path)


@pytest.mark.parametrize("path", ["main.py", "git/HEAD", ".gitignore", "lib/data.apkg", "a.pycx"])
def test_everything_else_stays(path: str) -> None:
    assert not Ignored().leaves_out(path)


def test_the_ignore_file_follows_gitignore() -> None:
    ignored = Ignored("# notes\n*.log\n!keep.log\n/data/\nbuild/**/x\n")
    assert ignored.leaves_out("a/b.log")
    assert not ignored.leaves_out("keep.log")
    assert ignored.leaves_out("data/x/y")
    assert not ignored.leaves_out("lib/data/x")
    assert ignored.leaves_out("build/a/b/x")


def test_nothing_comes_back_from_a_folder_that_is_left_out() -> None:
    assert Ignored("data/\n!data/keep\n").leaves_out("data/keep")


def test_the_fixed_names_cannot_be_brought_back() -> None:
    assert Ignored("!.git\n!*.pyc\n").leaves_out(".git/HEAD")


@pytest.mark.parametrize("line", ["!", "[z-a]"])
def test_a_malformed_pattern_is_named_with_its_line(line: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Ignored(f"ok\n{line}\n", "pkg/.swarmignore")
    assert caught.value.problems[0].where == "pkg/.swarmignore:2"
