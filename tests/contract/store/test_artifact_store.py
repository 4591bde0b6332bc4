"""What every artifact store promises."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from pathlib import Path

import pytest

from swarm.kernel.errors import InputError, NotFoundError, UnavailableError
from swarm.store.artifacts import CHUNK_BYTES, LocalArtifacts
from swarm.store.ports import ArtifactStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture(params=["nameless", "named"])
def artifacts(
    root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> ArtifactStore:
    """On a file system that can write files without a name, and on one that cannot."""
    if request.param == "named":
        # Without this bit the kernel sees a folder to be opened for writing: EISDIR, as it answers
        # on file systems that know nothing of such files.
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    return LocalArtifacts(root)


def reference_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
async def test_content_comes_back_by_its_digest(
    artifacts: ArtifactStore, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    source = tmp_path / "source"
    source.write_bytes(data)
    reference = await artifacts.put_bytes(data)
    assert reference == reference_of(data) == await artifacts.put_file(source)
    path = artifacts.path(reference)
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert path.parts[-3:] == ("sha256", reference[7:9], reference[9:])


async def test_a_descriptor_is_read_from_its_start_and_left_where_it_was(
    artifacts: ArtifactStore, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")
    with source.open("rb", buffering=0) as file:
        file.seek(4)
        assert await artifacts.put_descriptor(file.fileno()) == reference_of(b"0123456789")
        assert file.tell() == 4


async def test_the_same_content_is_kept_once(artifacts: ArtifactStore, root: Path) -> None:
    references = await asyncio.gather(*(artifacts.put_bytes(b"same" * 9999) for _ in range(30)))
    assert len(set(references)) == 1
    assert files_below(root) == [artifacts.path(references[0])]


async def test_what_is_no_regular_file_is_refused(
    artifacts: ArtifactStore, root: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(InputError):
            await artifacts.put_file(path)
    reader, writer = os.pipe()
    for descriptor in (reader, 99_999):
        with pytest.raises(InputError):
            await artifacts.put_descriptor(descriptor)
    os.close(reader)
    os.close(writer)
    assert not root.exists()


@pytest.mark.parametrize(
    "reference",
    [
        "sha256:" + "0" * 64,
        "sha256:../../etc/passwd",
        "sha256:" + "A" * 64,
        "live:1",
        "",
        "sha256:",
    ],
)
async def test_an_unknown_reference_is_not_found(artifacts: ArtifactStore, reference: str) -> None:
    await artifacts.put_bytes(b"something")
    with pytest.raises(NotFoundError):
        artifacts.path(reference)


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(UnavailableError) as caught:
        await LocalArtifacts(in_the_way / "artifacts").put_bytes(b"x")
    assert str(in_the_way) in str(caught.value)


async def test_nothing_is_left_of_what_was_not_finished(
    artifacts: ArtifactStore, root: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"cannot be read")
    descriptor = os.open(source, os.O_WRONLY)
    with pytest.raises(InputError):
        await artifacts.put_descriptor(descriptor)
    os.close(descriptor)
    assert root.is_dir()
    assert files_below(root) == []
