"""repo-files against real repositories; the figures are checked against git's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from tests.integration.catalog.repositories import (
    ODD_NAMES,
    GitRepository,
    new_repository,
    odd_repository,
)

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
ROOT = Path(__file__).parents[3]


def lines_by_git(repository: GitRepository) -> dict[bytes, int | None]:
    """Lines of each file at HEAD as `git diff --numstat` counts them; None for binaries."""
    found: dict[bytes, int | None] = {}
    for record in repository.git("diff", "--numstat", "-z", EMPTY_TREE, "HEAD").split(b"\0")[:-1]:
        added, _, path = record.split(b"\t", 2)
        found[path] = None if added == b"-" else int(added)
    return found


def by_path(report: Any) -> dict[bytes, dict[str, Any]]:
    return {unquote_to_bytes(row["path"]): row for row in report.rows()}


def test_lines_are_those_of_git(report_on: Any, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    texts = ["", "a", "a\n", "\n", "\n\n", "a\r\nb", "a\rb", "\x0b\x0c", "x" * 9000 + "\n", " \n"]
    for number, text in enumerate(texts):
        repository.write(f"t{number}.txt", text)
    for name in ODD_NAMES:
        repository.write(name, "one\ntwo")
    repository.write("early.bin", b"a\0b\n")
    repository.write("late.txt", b"x" * 7999 + b"\n\0\n")
    repository.commit()
    rows = by_path(report_on(repository.path))
    assert {path: row.get("lines") for path, row in rows.items()} == lines_by_git(repository)


def test_this_repository(report_on: Any) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("the tests do not run in a checkout")
    report = report_on(ROOT)
    totals = report["files"]["totals"]
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.split(b"\0")[:-1]
    contents = [(ROOT / os.fsdecode(name)).read_bytes() for name in names]
    texts = [content for content in contents if b"\0" not in content]
    assert totals["files"] == len(names)
    assert totals["bytes"] == sum(map(len, contents))
    assert totals["lines"] == sum(len(text.splitlines()) for text in map(bytes.decode, texts))
    assert report["licence"]["ids"] == ["MIT"]
    languages = {row["language"] for row in report.rows() if row["path"].endswith(".py")}
    assert languages == {"Python"}


def test_everything_odd(report_on: Any, tmp_path: Path) -> None:
    repository = odd_repository(tmp_path / "repo")
    report = report_on(repository.path)
    rows = by_path(report)
    tracked = set(repository.git("ls-files", "-z").split(b"\0")) - {b""}
    assert set(rows) == tracked
    assert b"untracked-later.py" not in rows

    kinds = {path: row["kind"] for path, row in rows.items()}
    assert kinds[b"link.py"] == kinds[b"link-to-folder"] == kinds[b"dangling"] == "symlink"
    assert kinds[b"sub module"] == "submodule"
    assert kinds[b"picture.png"] == "binary"
    assert kinds[b"late_nul.bin"] == "text"
    missing = {path for path, kind in kinds.items() if kind == "missing"}
    assert missing == {b"gone.py", b"pipe.py", b"moved/inside.py"}

    lines = {path: row.get("lines") for path, row in rows.items()}
    assert (lines[b"no_end.py"], lines[b"crlf.py"], lines[b"empty.py"]) == (3, 3, 0)
    assert (lines[b"utf16.txt"], lines[b"utf32.txt"]) == (4, 2)
    assert [lines[name] for name in ODD_NAMES] == list(range(1, len(ODD_NAMES) + 1))

    languages = {path: row.get("language") for path, row in rows.items()}
    assert languages[b"tool"] == "Python"
    assert languages[b"script"] == "Shell"
    assert languages[b"Makefile"] == "Makefile"
    assert languages[b"docker/Dockerfile.dev"] == "Dockerfile"


def test_totals_add_up(report_on: Any, tmp_path: Path) -> None:
    repository = odd_repository(tmp_path / "repo")
    report = report_on(repository.path)
    files = report["files"]
    totals, rows = files["totals"], report.rows()
    own = sum(row["lines"] for row in files["languages"]["items"])
    assert totals["lines"] == own + totals["vendored_lines"] + totals["generated_lines"]
    assert totals["lines"] == sum(row.get("lines", 0) for row in rows)
    assert totals["bytes"] == sum(row.get("bytes", 0) for row in rows)
    parts = ("text_files", "binary_files", "oversized_files")
    assert totals["files"] == sum(totals[part] for part in parts)
    everything = totals["files"] + sum(
        totals[part] for part in ("missing_files", "symlinks", "submodules")
    )
    assert everything == len(rows)
    assert (totals["vendored_files"], totals["vendored_lines"]) == (1, 2)
    assert (totals["generated_files"], totals["generated_lines"]) == (2, 4)
    assert (totals["symlinks"], totals["submodules"]) == (3, 1)
    assert files["submodules"]["items"] == ["sub module"]


def test_a_bare_repository_is_read_at_head(report_on: Any, tmp_path: Path) -> None:
    origin = odd_repository(tmp_path / "repo")
    origin.git("clone", "--quiet", "--bare", ".", os.fspath(tmp_path / "bare.git"))
    report = report_on(tmp_path / "bare.git")
    rows = by_path(report)
    assert report["files"]["source"] == "git-tree"
    at_head = set(origin.git("ls-tree", "-r", "-z", "--name-only", "HEAD").split(b"\0")) - {b""}
    assert set(rows) == at_head
    assert rows[b"no_end.py"]["lines"] == 3
    assert rows[b"moved/inside.py"]["lines"] == 1
    assert report["activity"]["commits"] == 1
    assert report["tests"]["source_files"] > 10


@pytest.mark.parametrize("kind", ["nothing committed", "empty commit", "staged only"])
def test_hardly_anything(report_on: Any, tmp_path: Path, kind: str) -> None:
    repository = new_repository(tmp_path / "repo")
    if kind == "empty commit":
        repository.commit()
    if kind == "staged only":
        repository.write("a.py", "x = 1\n")
        repository.git("add", "a.py")
    report = report_on(repository.path)
    assert report["files"]["totals"]["files"] == (kind == "staged only")
    assert report["activity"]["available"] is True
    assert report["activity"]["commits"] == (kind == "empty commit")
    assert 0 <= report["score"]["score"] <= 100


def test_a_bare_repository_without_commits(report_on: Any, tmp_path: Path) -> None:
    repository = GitRepository(tmp_path)
    repository.git("init", "--quiet", "--bare", "bare.git")
    report = report_on(tmp_path / "bare.git")
    assert report["files"]["totals"]["files"] == report["activity"]["commits"] == 0


def test_a_worktree_whose_repository_is_hidden(report_on: Any, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    repository.write("a.py", "x = 1\n")
    repository.write("node_modules/b.js", "x\n")
    repository.git("add", "--force", ".")
    repository.commit()
    repository.git("worktree", "add", "--quiet", os.fspath(tmp_path / "linked"))
    inner = new_repository(tmp_path / "linked" / "nested")
    inner.write("c.py", "x\n")
    (tmp_path / "linked" / "link.py").symlink_to("a.py")

    (tmp_path / "repo").rename(tmp_path / "elsewhere")
    report = report_on(tmp_path / "linked")
    assert report["files"]["source"] == "folder"
    kinds = {path: row["kind"] for path, row in by_path(report).items()}
    assert kinds == {b"a.py": "text", b"nested": "submodule", b"link.py": "symlink"}
    assert report["activity"]["available"] is False
    assert "linked worktree" in report["activity"]["reason"]
    assert any("could not be read" in note for note in report["files"]["notes"])
    assert "History not available" in report.text("report.md")
    assert "History not available" in report.text("report.html")


def test_a_worktree_whose_repository_is_there(report_on: Any, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    repository.write("a.py", "x = 1\n")
    repository.commit()
    repository.git("worktree", "add", "--quiet", os.fspath(tmp_path / "linked"))
    report = report_on(tmp_path / "linked")
    assert report["files"]["source"] == "git-index"
    assert report["activity"]["commits"] == 1


def test_a_broken_index_leaves_the_folder_and_the_history(report_on: Any, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    repository.write("a.py", "x = 1\n")
    repository.commit()
    (repository.path / ".git" / "index").write_bytes(b"DIRCgarbage")
    report = report_on(repository.path)
    assert report["files"]["source"] == "folder"
    assert report["files"]["totals"]["files"] == 1
    assert report["activity"]["commits"] == 1


def test_a_conflict_counts_each_path_once(report_on: Any, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    repository.write("a.py", "x = 1\n")
    repository.commit()
    repository.git("checkout", "--quiet", "-b", "side")
    repository.write("a.py", "x = 2\n")
    repository.commit()
    repository.git("checkout", "--quiet", "main")
    repository.write("a.py", "x = 3\n")
    repository.commit()
    with pytest.raises(AssertionError):
        repository.git("merge", "--quiet", "side")
    assert repository.git("ls-files").splitlines().count(b"a.py") == 3
    assert report_on(repository.path)["files"]["totals"]["files"] == 1


def test_a_huge_file_is_not_read(report_on: Any, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    repository.write("small.sql", "select 1;\n")
    with (repository.path / "huge.sql").open("wb") as file:
        file.truncate(3 * 1024**3)
    repository.git("add", "small.sql")
    repository.git("update-index", "--add", "--cacheinfo", f"100644,{'1' * 40},huge.sql")
    files = report_on(repository.path)["files"]
    assert files["totals"]["oversized_files"] == 1
    assert files["totals"]["lines"] == 1
    assert files["totals"]["bytes"] == 3 * 1024**3 + 10
    assert files["largest_files"][0] == {"path": "huge.sql", "bytes": 3 * 1024**3}
    assert any("32 MiB" in note for note in files["notes"])


def test_not_a_repository(agents: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, says in (("folder", r"not a git repository.*top folder"), ("file", "not a folder")):
        path = str(tmp_path / name)
        with pytest.raises(Exception, match=says):
            agents("repo-files", path=path)
        # Beside it in the workflow, this must not fail first with less to say.
        assert re.search(says, agents("repo-activity", path=path)["reason"])


def test_a_folder_inside_a_repository_is_not_one(agents: Any, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    repository.write("inner/a.py", "x\n")
    repository.commit()
    with pytest.raises(Exception, match="not a git repository"):
        agents("repo-files", path=str(repository.path / "inner"))


def test_lists_are_bounded(report_on: Any, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    for number in range(450):
        manifest = json.dumps({"dependencies": {f"d{number}": "1"}})
        repository.write(f"p{number}/package.json", manifest)
        repository.write(f"p{number}/a.py", "# FIXME this\n")
    repository.commit()
    report = report_on(repository.path)
    assert any("left out" in note for note in report["files"]["notes"])
    dependencies = report["dependencies"]["dependencies"]
    assert (dependencies["total"], len(dependencies["items"])) == (400, 200)
    assert dependencies["truncated"] is True
    assert report["debt"]["total"] == 450
    assert len(report["debt"]["files"]["items"]) == 20
