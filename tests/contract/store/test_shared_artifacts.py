"""What machines that share a database promise each other about artifacts."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from pathlib import Path

import pytest

from swarm.kernel.errors import DamagedError, NotFoundError, RefusedError
from swarm.kernel.settings import MIB
from swarm.store.shared.ports import Blob
from tests.bucket.machines import Machine, Machines

DAY = 86_400.0


@pytest.fixture(params=["database", "bucket"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(open_machine: Machines, place: str, tmp_path: Path):
    """Opens the machine of this name."""

    def open_one(name: str, **settings: object) -> Machine:
        return open_machine(tmp_path / name, bucket=place == "bucket", **settings)

    return open_one


@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB + 1, 17 * MIB])
async def test_what_one_machine_puts_another_gets(machine, size: int) -> None:
    data = os.urandom(size)
    reference = await machine("a").artifacts.put_bytes(data)
    other = machine("b")
    path = await other.artifacts.fetch(reference)
    assert path.read_bytes() == data
    assert path == other.artifacts.path(reference)


async def test_a_file_goes_once(machine, open_machine: Machines, place: str) -> None:
    one, two = machine("a"), machine("b")
    references = await asyncio.gather(
        *(each.artifacts.put_bytes(b"same" * 9_999) for each in (one, two, one, two, one, two))
    )
    assert len(set(references)) == 1
    one.shared.sweep(100)
    assert one.index.old_keys("artifact", -1.0, "", 10) == [references[0].removeprefix("sha256:")]
    if place == "bucket":
        assert len(open_machine.server.keys(open_machine.bucket)) == 1


async def test_what_nobody_put_is_not_found(machine) -> None:
    with pytest.raises(NotFoundError, match="shared store"):
        await machine("a").artifacts.fetch("sha256:" + "0" * 64)


async def test_wrong_bytes_are_refused_and_leave_nothing(
    machine, open_machine: Machines, place: str, tmp_path: Path
) -> None:
    data = b"as it was put" * 1000
    reference = await machine("a").artifacts.put_bytes(data)
    forged = data.replace(b"was", b"WAS")
    if place == "bucket":
        (key,) = open_machine.server.keys(open_machine.bucket)
        open_machine.server.overwrite(open_machine.bucket, key, forged)
    else:
        open_machine.execute(f"UPDATE blob_chunks SET data = '\\x{forged.hex()}'")
    other = machine("b")
    with pytest.raises(DamagedError) as caught:
        await other.artifacts.fetch(reference)
    assert reference.removeprefix("sha256:") in str(caught.value)
    assert caught.value.remedy is not None
    left = [path for path in (tmp_path / "b").rglob("*") if path.is_file()]
    assert [path for path in left if path.stat().st_size] == []


async def test_bytes_that_are_gone_are_told_and_come_back_when_put_again(
    machine, open_machine: Machines, place: str
) -> None:
    one = machine("a")
    reference = await one.artifacts.put_bytes(b"precious")
    if place == "bucket":
        (key,) = open_machine.server.keys(open_machine.bucket)
        open_machine.server.delete(open_machine.bucket, key)
    else:
        open_machine.execute("DELETE FROM blob_chunks")
    with pytest.raises(NotFoundError, match="gone from the"):
        await machine("b").artifacts.fetch(reference)
    await one.artifacts.put_bytes(b"precious")
    assert (await machine("b").artifacts.fetch(reference)).read_bytes() == b"precious"


async def test_many_that_want_one_thing_fetch_it_once(machine, place: str) -> None:
    reference = await machine("a").artifacts.put_bytes(os.urandom(3 * MIB))
    # Two processes of one machine: two stores on one folder.
    processes = [machine("b"), machine("b")]
    reads = 0

    def counted(read):
        def reading(blob: Blob):
            nonlocal reads
            reads += 1
            return read(blob)

        return reading

    for process in processes:
        bytes_of = process.shared.places[place]
        bytes_of.read = counted(bytes_of.read)  # type: ignore[method-assign]
    paths = await asyncio.gather(
        *(process.artifacts.fetch(reference) for process in processes for _ in range(10))
    )
    assert len(set(paths)) == 1
    assert reads == 1


async def test_what_is_touched_is_not_doomed(machine, open_machine: Machines) -> None:
    one, two = machine("a"), machine("b")
    kept, gone = [await one.artifacts.put_bytes(text) for text in (b"kept", b"gone")]
    keys = [reference.removeprefix("sha256:") for reference in (kept, gone)]
    open_machine.age(DAY)
    assert await two.artifacts.put_bytes(b"kept") == kept  # refers to it from now on
    assert one.index.doom_unused("artifact", keys, 3600.0) == (1, 4)
    assert one.shared.sweep(10) == 1
    assert (await machine("c").artifacts.fetch(kept)).read_bytes() == b"kept"
    with pytest.raises(NotFoundError):
        await machine("c").artifacts.fetch(gone)


async def test_what_is_deleted_while_it_is_put_again_is_there(
    machine, open_machine: Machines
) -> None:
    """The deletion of an old upload never takes a newer one with it."""
    one, two = machine("a"), machine("b")
    reference = await one.artifacts.put_bytes(b"contended")
    digest = reference.removeprefix("sha256:")
    open_machine.age(DAY)
    assert one.index.doom_unused("artifact", [digest], 3600.0) == (1, 9)
    (doomed,) = one.index.doomed(10)
    await two.artifacts.put_bytes(b"contended")  # between the decision and the deed
    assert one.shared.sweep(10) == 1
    found = one.index.find("artifact", digest)
    assert found is not None and found.location != doomed.location
    assert (await machine("c").artifacts.fetch(reference)).read_bytes() == b"contended"


async def test_what_was_begun_and_never_finished_goes(
    machine, open_machine: Machines, place: str
) -> None:
    one = machine("a")
    digest = hashlib.sha256(b"half").hexdigest()
    blob = Blob("artifact", digest, digest, 4, place, f"artifact/{digest}.0000")  # type: ignore[arg-type]
    one.index.begin(blob)
    one.shared.places[blob.place].write(blob, io.BytesIO(b"half"))
    with pytest.raises(NotFoundError):  # nobody finds what is not whole
        one.shared.fetch("artifact", digest, list)
    assert one.index.doom_unfinished(DAY) == 0
    open_machine.age(2 * DAY)
    assert one.index.doom_unfinished(DAY) == 1
    assert one.shared.sweep(10) == 1
    assert one.shared.sweep(10) == 0
    if place == "bucket":
        assert open_machine.server.keys(open_machine.bucket) == []
    else:
        assert open_machine.execute("SELECT count(*) FROM blob_chunks") == [(0,)]


async def test_one_machine_collects_at_a_time(machine) -> None:
    one, two = machine("a").index, machine("b").index
    with one.alone() as first, two.alone() as second:
        assert (first, second) == (True, False)
    with two.alone() as again:
        assert again


async def test_the_database_takes_no_file_beyond_its_limit(
    open_machine: Machines, tmp_path: Path
) -> None:
    small = open_machine(tmp_path / "a", artifact_database_mb=1)
    await small.artifacts.put_bytes(bytes(MIB))
    with pytest.raises(RefusedError) as caught:
        await small.artifacts.put_bytes(bytes(MIB + 1))
    assert "artifact_url" in (caught.value.remedy or "")
    with_bucket = open_machine(tmp_path / "b", artifact_database_mb=1, bucket=True)
    await with_bucket.artifacts.put_bytes(bytes(MIB + 1))
