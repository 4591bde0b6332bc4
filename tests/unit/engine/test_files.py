"""Files come out of a sandbox without following links, and forged references get nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.definitions.fields import FieldDefinition
from swarm.engine.files import FileAccess, collect_outputs, handler_inputs
from swarm.engine.trees import DIRECTORY_MEDIA_TYPE, materialise_tree
from swarm.kernel.errors import InputError, RefusedError, SwarmError
from swarm.store.artifacts import LocalArtifacts

REPORT = FieldDefinition(name="report", type="file")
SITE = FieldDefinition(name="site", type="directory")
FORGED = {"$artifact": "sha256:" + "0" * 64, "name": "x", "size": 1, "media_type": "text/plain"}


@pytest.fixture
def artifacts(tmp_path: Path) -> LocalArtifacts:
    return LocalArtifacts(tmp_path / "artifacts")


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


@pytest.fixture
def descriptor(outputs: Path) -> Iterator[int]:
    opened = os.open(outputs, os.O_RDONLY | os.O_DIRECTORY)
    yield opened
    os.close(opened)


async def collect(
    field: FieldDefinition,
    value: Any,
    descriptor: int,
    artifacts: LocalArtifacts,
    given: dict[str, Any] | None = None,
    max_files: int = 10,
) -> Any:
    collected = await collect_outputs(
        [field], {field.name: value}, lambda: descriptor, artifacts, given or {}, max_files
    )
    return collected[field.name]


@pytest.mark.parametrize("path", ["a/report.md", "./a/report.md", "/outputs/a/report.md"])
async def test_a_named_file_becomes_a_file_value(
    outputs: Path, descriptor: int, artifacts: LocalArtifacts, path: str
) -> None:
    (outputs / "a").mkdir()
    (outputs / "a" / "report.md").write_text("# Report")
    value = await collect(REPORT, {"$file": path}, descriptor, artifacts)
    assert (value["name"], value["size"], value["media_type"]) == ("report.md", 8, "text/markdown")
    assert artifacts.path(value["$artifact"]).read_text() == "# Report"


@pytest.mark.parametrize(
    "path", ["../secret", "a/../../secret", "/etc/passwd", "", ".", "missing", "nul\0", 5]
)
async def test_a_path_that_leaves_the_directory_is_refused(
    outputs: Path, descriptor: int, artifacts: LocalArtifacts, path: object
) -> None:
    (outputs.parent / "secret").write_text("secret")
    with pytest.raises(SwarmError):
        await collect(REPORT, {"$file": path}, descriptor, artifacts)


async def test_links_devices_and_hard_links_are_refused(
    outputs: Path, descriptor: int, artifacts: LocalArtifacts
) -> None:
    secret = outputs.parent / "secret"
    secret.write_text("secret")
    (outputs / "symlink").symlink_to(secret)
    (outputs / "folder").symlink_to(outputs.parent)
    (outputs / "hardlink").hardlink_to(secret)
    os.mkfifo(outputs / "fifo")
    for path in ("symlink", "folder/secret", "hardlink", "fifo"):
        with pytest.raises(SwarmError):
            await collect(REPORT, {"$file": path}, descriptor, artifacts)


async def test_a_reference_that_was_never_given_is_refused(
    descriptor: int, artifacts: LocalArtifacts
) -> None:
    with pytest.raises(RefusedError, match="not given"):
        await collect(REPORT, FORGED, descriptor, artifacts)
    nested = FieldDefinition(name="data", type="object")
    with pytest.raises(RefusedError, match="not given"):
        await collect(nested, {"deep": [FORGED]}, descriptor, artifacts)
    passed_on = await collect(REPORT, FORGED, descriptor, artifacts, {"source": [FORGED]})
    assert passed_on == FORGED


async def test_a_directory_comes_out_and_goes_in_again(
    tmp_path: Path, outputs: Path, descriptor: int, artifacts: LocalArtifacts
) -> None:
    site = outputs / "site"
    (site / "sub").mkdir(parents=True)
    (site / "index.html").write_text("<p>")
    (site / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (site / "sub" / "run.sh").chmod(0o755)
    value = await collect(SITE, {"$file": "site"}, descriptor, artifacts)
    assert value["media_type"] == DIRECTORY_MEDIA_TYPE
    again = await collect(SITE, {"$file": "site"}, descriptor, artifacts)
    assert again == value  # equal directories, equal references
    for _ in range(2):
        folder = materialise_tree(artifacts, tmp_path / "cache", value["$artifact"])
        assert (folder / "index.html").read_text() == "<p>"
        assert os.access(folder / "sub" / "run.sh", os.X_OK)


async def test_too_many_files_are_refused(
    outputs: Path, descriptor: int, artifacts: LocalArtifacts
) -> None:
    (outputs / "site").mkdir()
    for index in range(4):
        (outputs / "site" / str(index)).touch()
    with pytest.raises(SwarmError, match="more files than the limit"):
        await collect(SITE, {"$file": "site"}, descriptor, artifacts, max_files=3)


async def test_a_live_directory_is_mounted_only_where_the_run_was_given_it(
    tmp_path: Path, artifacts: LocalArtifacts
) -> None:
    live = {"$artifact": "live:one", "name": "repo", "media_type": DIRECTORY_MEDIA_TYPE}
    field = FieldDefinition(name="path", type="directory")
    granted = FileAccess(artifacts, tmp_path / "cache", {"live:one": str(tmp_path)})
    mounts = await granted.mount_inputs([field], {"path": live})
    assert [(mount.name, mount.source) for mount in mounts] == [("path", tmp_path)]
    assert handler_inputs({"path": live}, mounts, isolated=True) == {"path": "/inputs/path"}
    with pytest.raises(InputError, match="was not given"):
        await FileAccess(artifacts, tmp_path, {}).mount_inputs([field], {"path": live})
    gone = FileAccess(artifacts, tmp_path, {"live:one": str(tmp_path / "gone")})
    with pytest.raises(InputError, match="no longer there"):
        await gone.mount_inputs([field], {"path": live})
    with pytest.raises(InputError, match="must be a file"):
        await granted.mount_inputs([REPORT], {"report": live})
