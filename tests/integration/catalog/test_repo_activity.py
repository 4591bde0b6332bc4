"""repo-activity against git's own figures."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.catalog.repositories import GitRepository, new_repository


@pytest.fixture
def history(tmp_path: Path) -> GitRepository:
    """Three people (one with two addresses, joined by .mailmap), a bot, a merge, odd dates."""
    repository = new_repository(tmp_path / "repo")
    repository.write(".mailmap", "Grace <grace@example.com> <old@example.com>\n")
    people = [
        ("Ada", "ada@example.com"),
        ("ADA", "ADA@example.com"),
        ("Grace", "grace@example.com"),
        ("G. H.", "old@example.com"),
        ("<script>alert(1)</script> | `x`", "evil@example.com"),
        ("dependabot[bot]", "bot@example.com"),
    ]
    days = ["2023-12-31T23:30:00-05:00", "2024-01-31T12:00:00Z", "2024-03-01T00:30:00+02:00"]
    for number in range(30):
        name, address = people[number % len(people)]
        when = days[number % len(days)]
        repository.commit(f"c{number}", when=when, **repository.by(name, address))
    repository.git("checkout", "--quiet", "-b", "side", "HEAD~3")
    repository.commit("side", when="2024-02-10T00:00:00Z")
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "side", when="2024-03-05T00:00:00Z")
    return repository


def test_figures_are_those_of_git(agents: Any, history: GitRepository) -> None:
    found = agents("repo-activity", path=str(history.path), as_of="2024-03-31")
    count = history.git("rev-list", "--count", "HEAD")
    assert found["commits"] == int(count)
    assert found["merges"] == int(history.git("rev-list", "--count", "--merges", "HEAD"))
    months = history.git("log", "--date=format-local:%Y-%m", "--format=%ad", TZ="UTC").decode()
    by_git = Counter(months.split())
    assert {m["month"]: m["commits"] for m in found["months"] if m["commits"]} == by_git
    assert len(found["months"]) == 24
    assert found["months"][-1]["month"] == "2024-03"
    addresses = history.git("log", "--format=%aE").decode().lower().split()
    assert found["contributors"]["total"] == len(set(addresses))
    by_address = sorted(Counter(addresses).values(), reverse=True)
    assert [row["commits"] for row in found["contributors"]["items"]] == by_address
    assert sum(row["commits"] for row in found["contributors"]["items"]) == found["commits"]
    assert found["head"]["commit"] == history.git("rev-parse", "HEAD").decode().strip()
    assert (found["head"]["branch"], found["head"]["detached"]) == ("main", False)
    assert [row["bot"] for row in found["contributors"]["items"]].count(True) == 1
    assert found["half_of_commits_by"] == 2


def test_dates(agents: Any, history: GitRepository) -> None:
    found = agents("repo-activity", path=str(history.path), as_of="2024-03-31")
    assert found["first_commit"] == "2024-01-01T04:30:00Z"
    assert found["last_commit"] == "2024-03-05T00:00:00Z"
    assert found["days_since_last_commit"] == 26
    since = history.git("log", "--format=%at", "HEAD").split()
    end = 1711929600  # 2024-04-01T00:00:00Z
    assert found["commits_last_90_days"] == sum(int(t) >= end - 90 * 86400 for t in since)
    found = agents("repo-activity", path=str(history.path), as_of="2030-01-01")
    assert found["commits_last_365_days"] == 0
    assert sum(month["commits"] for month in found["months"]) == 0


def test_shallow_and_detached(agents: Any, history: GitRepository, tmp_path: Path) -> None:
    url = f"file://{history.path}"
    history.git("clone", "--quiet", "--depth=5", url, os.fspath(tmp_path / "shallow"))
    shallow = GitRepository(tmp_path / "shallow")
    shallow.git("checkout", "--quiet", "--detach")
    found = agents("repo-activity", path=str(shallow.path))
    assert found["shallow"] is True
    assert found["commits"] == int(shallow.git("rev-list", "--count", "HEAD"))
    assert found["commits"] < 32
    assert (found["head"]["detached"], found["head"]["branch"]) == (True, "")


@pytest.mark.parametrize("date", ["99999999999999 +0000", "0 +0000", "253402300800 +0000"])
def test_senseless_dates(agents: Any, tmp_path: Path, date: str) -> None:
    repository = new_repository(tmp_path / "repo")
    tree = repository.git("write-tree").decode().strip()
    raw = f"tree {tree}\nauthor A <a@b> {date}\ncommitter A <a@b> {date}\n\nx\n"
    (tmp_path / "raw").write_text(raw)
    path = os.fspath(tmp_path / "raw")
    commit = repository.git("hash-object", "-t", "commit", "-w", "--literally", path)
    repository.git("update-ref", "HEAD", commit.decode().strip())
    found = agents("repo-activity", path=str(repository.path))
    assert found["commits"] == 1
    assert found["last_commit"] == ("1970-01-01T00:00:00Z" if date[0] == "0" else "")


def test_missing_objects_are_a_reason(agents: Any, history: GitRepository) -> None:
    first = history.git("rev-list", "--max-parents=0", "HEAD").decode().strip()
    (history.path / ".git" / "objects" / first[:2] / first[2:]).unlink()
    found = agents("repo-activity", path=str(history.path))
    assert found["available"] is False
    assert "could not read the history" in found["reason"]
    assert found["commits"] == 0


def test_a_day_that_is_none(agents: Any, history: GitRepository) -> None:
    with pytest.raises(Exception, match="day is out of range"):
        agents("repo-activity", path=str(history.path), as_of="2024-02-31")
