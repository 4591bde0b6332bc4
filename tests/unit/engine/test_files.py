"""Files come out of a sandbox without following links, and forged references get nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterator
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


def opened(descriptor: int) -> Callable[[], Awaitable[int]]:
    async def give() -> int:
        return descriptor

    return give


async def collect(
    field: FieldDefinition,
    value: Any,
    descriptor: int,
    artifacts: LocalArtifacts,
    given: dict[str, Any] | None = None,
    max_files: int = 10,
    max_bytes: int = 1 << 20,
) -> Any:
    collected = await collect_outputs(
        [field],
        {field.name: value},
        opened(descriptor),
        artifacts,
        given or {},
        max_files,
        max_bytes,
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


async def test_holes_count_as_the_bytes_that_copying_them_takes(
    outputs: Path, descriptor: int, artifacts: LocalArtifacts
) -> None:
    (outputs / "site").mkdir()
    for index in range(3):
        with (outputs / "site" / str(index)).open("wb") as file:
            file.truncate(1000)
    await collect(SITE, {"$file": "site"}, descriptor, artifacts, max_bytes=3000)
    with pytest.raises(SwarmError, match="more bytes in files than the limit"):
        await collect(SITE, {"$file": "site"}, descriptor, artifacts, max_bytes=2999)


async def test_a_path_that_no_host_could_open_is_refused(
    outputs: Path, descriptor: int, artifacts: LocalArtifacts
) -> None:
    current = outputs / "site"
    current.mkdir()
    for _ in range(9):
        current = current / ("d" * 250)
        current.mkdir()
    with pytest.raises(SwarmError, match="its path is too long"):
        await collect(SITE, {"$file": "site"}, descriptor, artifacts)


async def _forged(artifacts: LocalArtifacts, listing: object) -> str:
    return await artifacts.put_bytes(json.dumps(listing).encode())


async def test_a_file_cannot_pass_for_a_directory(
    outputs: Path, descriptor: int, artifacts: LocalArtifacts
) -> None:
    (outputs / "report").write_text('{"files": []}')
    value = await collect(REPORT, {"$file": "report"}, descriptor, artifacts)
    as_directory = {**value, "media_type": DIRECTORY_MEDIA_TYPE}
    with pytest.raises(RefusedError, match="as a directory"):
        await collect(SITE, as_directory, descriptor, artifacts, {"source": value})
    typed = {"$file": "report", "media_type": DIRECTORY_MEDIA_TYPE}
    with pytest.raises(RefusedError, match="as a directory"):
        await collect(REPORT, typed, descriptor, artifacts)
    both = {"report": {"$file": "report"}, "site": as_directory}
    with pytest.raises(RefusedError, match="as a directory"):
        await collect_outputs([REPORT, SITE], both, opened(descriptor), artifacts, {}, 10, 1000)
    listed = await collect(SITE, as_directory, descriptor, artifacts, {"source": as_directory})
    assert listed == as_directory


@pytest.mark.parametrize(
    "path",
    ["../out", "/tmp/out", "a/../../out", "a//b", "", ".", "a/.", "nul\0", 5, "d/" * 100 + "x"],
)
async def test_a_forged_listing_leads_nowhere(
    tmp_path: Path, artifacts: LocalArtifacts, path: object
) -> None:
    content = await artifacts.put_bytes(b"attacked")
    digest = content.removeprefix("sha256:")
    entry = {"path": path, "sha256": digest, "size": 8, "executable": True}
    reference = await _forged(artifacts, {"files": [entry]})
    with pytest.raises(InputError):
        materialise_tree(artifacts, tmp_path / "cache", reference)
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]


@pytest.mark.parametrize(
    "listing", [[], "text", {}, {"files": 5}, {"files": [[]]}, {"files": [{"path": "a"}]}]
)
async def test_what_is_no_listing_is_no_directory(
    tmp_path: Path, artifacts: LocalArtifacts, listing: object
) -> None:
    reference = await _forged(artifacts, listing)
    with pytest.raises(InputError, match="not the listing of a directory"):
        materialise_tree(artifacts, tmp_path / "cache", reference)


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("a/b/c", "a")])
async def test_a_listing_holds_each_path_once(
    tmp_path: Path, artifacts: LocalArtifacts, paths: tuple[str, str]
) -> None:
    digest = (await artifacts.put_bytes(b"x")).removeprefix("sha256:")
    entries = [{"path": path, "sha256": digest, "size": 1, "executable": False} for path in paths]
    reference = await _forged(artifacts, {"files": entries})
    with pytest.raises(InputError, match="two files at one path"):
        materialise_tree(artifacts, tmp_path / "cache", reference)


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
