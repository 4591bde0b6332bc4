"""What every artifact store promises."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarm.kernel.errors import InputError, NotFoundError, UnavailableError
from swarm.store.artifacts import CHUNK_BYTES, LocalArtifacts
from swarm.store.ports import ArtifactStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def without_nameless_files(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without this bit the kernel sees a folder to be opened for writing: EISDIR, as it answers
    # on file systems that know nothing of such files.
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)


@pytest.fixture(params=["nameless", "named", "database", "bucket"])
def artifacts(
    root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ArtifactStore]:
    """On a file system that can write files without a name, on one that cannot, and shared."""
    if request.param in ("database", "bucket"):
        machine = request.getfixturevalue("open_machine")
        yield machine(root, bucket=request.param == "bucket").artifacts
        return
    if request.param == "named":
        without_nameless_files(monkeypatch)
    yield LocalArtifacts(root)


def reference_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def files_below(root: Path) -> list[Path]:
    locks = {root / "held", root / "fetching"}
    return [path for path in root.rglob("*") if path.is_file() and path.parent not in locks]


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


def age(path: Path) -> None:
    os.utime(path, (1_000_000, 1_000_000))


async def test_what_is_old_and_not_in_use_is_removed(root: Path) -> None:
    artifacts = LocalArtifacts(root)
    assert artifacts.shards() == []
    used, unused, young = [await artifacts.put_bytes(text) for text in (b"a", b"bb", b"c")]
    age(artifacts.path(used))
    age(artifacts.path(unused))
    removed = [artifacts.remove_unused(shard, {used}, 2_000_000) for shard in artifacts.shards()]
    assert tuple(map(sum, zip(*removed, strict=True))) == (1, 2)
    assert artifacts.path(used).read_bytes() == b"a"
    assert artifacts.path(young).read_bytes() == b"c"
    with pytest.raises(NotFoundError):
        artifacts.path(unused)


async def test_what_is_put_again_is_young_again(root: Path) -> None:
    artifacts = LocalArtifacts(root)
    reference = await artifacts.put_bytes(b"again")
    age(artifacts.path(reference))
    assert await artifacts.put_bytes(b"again") == reference
    for shard in artifacts.shards():
        assert artifacts.remove_unused(shard, (), 2_000_000) == (0, 0)
    assert artifacts.path(reference).read_bytes() == b"again"


async def test_putting_and_removing_at_once_loses_nothing(root: Path) -> None:
    """Whoever has put something finds it there, however old the copy was that lay there."""
    artifacts = LocalArtifacts(root)
    path = artifacts.path(await artifacts.put_bytes(b"contended"))
    done = asyncio.Event()

    async def remove() -> int:
        count = 0
        while not done.is_set():
            for shard in artifacts.shards():
                removed, _ = await asyncio.to_thread(artifacts.remove_unused, shard, (), 2_000_000)
                count += removed
        return count

    removing = asyncio.create_task(remove())
    for _ in range(300):
        with contextlib.suppress(FileNotFoundError):
            age(path)
        await artifacts.put_bytes(b"contended")
        assert path.read_bytes() == b"contended"
    done.set()
    assert await removing > 0


async def test_removing_waits_for_whoever_is_putting(root: Path) -> None:
    artifacts = LocalArtifacts(root)
    path = artifacts.path(await artifacts.put_bytes(b"contended"))
    age(path)
    putting = os.open(root / "sha256", os.O_RDONLY)
    fcntl.flock(putting, fcntl.LOCK_SH)  # as a process that has seen that it is there
    inode = os.fstat(putting).st_ino
    (shard,) = artifacts.shards()

    def is_waiting() -> bool:
        locks = Path("/proc/locks").read_text().splitlines()
        return any("->" in line and f":{inode} " in line for line in locks)

    with ThreadPoolExecutor(1) as threads:
        removing = threads.submit(artifacts.remove_unused, shard, (), 2_000_000)
        while not removing.done() and not is_waiting():
            os.sched_yield()
        os.utime(path)
        os.close(putting)
        assert removing.result() == (0, 0)
    assert path.read_bytes() == b"contended"
