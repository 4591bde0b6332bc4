"""The image's build file, and that what it installs is locked and complete."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import PurePath

from packaging.requirements import Requirement

from tests.architecture.rules import ROOT, tracked_files
from tests.deploy.tools import DEPLOY, need, passes

CONTAINERFILE = DEPLOY / "Containerfile"


def instructions() -> list[tuple[str, str]]:
    """Instruction and rest of each line, comments taken out and continued lines joined."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines if line.strip()]


def shown_to_the_build(path: PurePath) -> bool:
    """Whether .dockerignore lets a file through; the last pattern that fits decides."""
    is_shown = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        parents = [str(path), *map(str, path.parents), *path.parts]
        if any(fnmatch(parent, pattern) for parent in parents):
            is_shown = line.startswith("!")
    return is_shown


def test_the_linter_finds_no_fault() -> None:
    passes(need("hadolint"), CONTAINERFILE)


def test_it_is_built_in_stages_and_runs_as_an_ordinary_user() -> None:
    found = instructions()
    assert [name for name, _ in found].count("FROM") == 2
    last = found[len(found) - [name for name, _ in reversed(found)].index("FROM") :]
    assert dict(last)["USER"] == "10001:10001"
    assert dict(last)["CMD"] == '["worker"]'
    assert "swarm" in dict(last)["HEALTHCHECK"]


def test_everything_is_installed_from_locks_without_running_code() -> None:
    installs = [
        command
        for name, rest in instructions()
        if name == "RUN"
        for command in rest.split("&&")
        if "pip install" in command
    ]
    assert len(installs) == 3
    for command in installs:
        if "--no-index" in command:
            assert command.split()[-1].endswith(".whl")
        else:
            assert "--require-hashes" in command
            assert "--only-binary :all:" in command


def test_what_is_copied_is_there_and_shown_to_the_build() -> None:
    tracked = [path.relative_to(ROOT) for path in tracked_files()]
    for name, rest in instructions():
        if name != "COPY" or "--from=" in rest:
            continue
        for source in rest.split()[:-1]:
            below = [path for path in tracked if path.is_relative_to(source)]
            assert below, f"{source} is not there"
            assert all(map(shown_to_the_build, below)), source
    assert not shown_to_the_build(PurePath("deploy/.env"))
    assert not shown_to_the_build(PurePath(".git/config"))
    assert not shown_to_the_build(PurePath("src/swarm/__pycache__"))


def test_the_lock_has_every_dependency_and_every_extra() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*document["dependencies"]]
    for extra in document["optional-dependencies"].values():
        wanted += extra
    locked = dict(
        re.findall(r"^([a-z0-9._-]+)==(\S+)", (DEPLOY / "requirements.txt").read_text(), re.M)
    )
    for text in wanted:
        requirement = Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        assert name in locked, f"{name}: run `make lock`"
        assert requirement.specifier.contains(locked[name])
