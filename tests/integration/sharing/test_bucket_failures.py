"""What happens when the bucket refuses, goes away, cuts connections or falls silent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.kernel.errors import NotFoundError, UnavailableError
from swarm.kernel.settings import MIB
from tests.bucket.machines import Machines
from tests.bucket.relay import Relay


@pytest.fixture
def relay(open_machine: Machines) -> Iterator[Relay]:
    """Between machines and the server of buckets; its address is ``endpoint_of(relay)``."""
    relay = Relay(int(open_machine.server.endpoint.rpartition(":")[2]))
    yield relay
    relay.close()


def endpoint_of(relay: Relay) -> str:
    return f"http://127.0.0.1:{relay.port}"


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"artifact_secret_access_key": "wrong"}, "credentials"),
        ({"artifact_access_key_id": "nobody"}, "credentials"),
        ({"artifact_url": "s3://not-there?endpoint={endpoint}&region=eu-west-1"}, "not-there"),
    ],
)
async def test_a_wrong_key_or_bucket_is_told_without_the_key(
    open_machine: Machines, tmp_path: Path, settings: dict[str, str], word: str
) -> None:
    endpoint = open_machine.server.endpoint
    given = {name: value.format(endpoint=endpoint) for name, value in settings.items()}
    machine = open_machine(tmp_path / "a", bucket=True, artifact_retries=0, **given)
    with pytest.raises((UnavailableError, NotFoundError)) as caught:
        await machine.artifacts.put_bytes(b"refused")
    assert word in str(caught.value)
    assert caught.value.remedy
    for secret in (open_machine.server.secret_access_key, "wrong"):
        assert secret not in caught.value.message
    assert open_machine.execute("SELECT count(*) FROM blobs WHERE state = 'present'") == [(0,)]


async def test_connections_that_are_cut_are_made_again(
    open_machine: Machines, relay: Relay, tmp_path: Path
) -> None:
    data = os.urandom(20 * MIB)
    reference = await open_machine(tmp_path / "a", bucket=True).artifacts.put_bytes(data)
    far = open_machine(tmp_path / "b", bucket=True, endpoint=endpoint_of(relay))
    relay.cut_after(0, 100, 50_000, 3 * MIB)
    assert (await far.artifacts.fetch(reference)).read_bytes() == data
    assert relay.accepted >= 5
    assert relay.passed < 2 * len(data)


async def test_an_upload_that_is_cut_is_tried_again_and_is_there_once(
    open_machine: Machines, relay: Relay, tmp_path: Path
) -> None:
    far = open_machine(tmp_path / "a", bucket=True, endpoint=endpoint_of(relay))
    relay.cut_after(0, 0, 10)
    data = os.urandom(20 * MIB)
    reference = await far.artifacts.put_bytes(data)
    near = open_machine(tmp_path / "b", bucket=True)
    assert (await near.artifacts.fetch(reference)).read_bytes() == data
    assert len(open_machine.server.keys(open_machine.bucket)) == 1


async def test_a_bucket_that_is_away_is_told_and_nothing_is_left(
    open_machine: Machines, relay: Relay, tmp_path: Path
) -> None:
    machine = open_machine(
        tmp_path / "a", bucket=True, endpoint=endpoint_of(relay), artifact_retries=1
    )
    relay.refuse()
    with pytest.raises(UnavailableError, match="cannot be written") as caught:
        await machine.artifacts.put_bytes(b"nowhere to go")
    assert "artifact_url" in (caught.value.remedy or "")
    relay.heal()
    # What failed is doomed, so the same content can be put, and collecting clears up.
    reference = await machine.artifacts.put_bytes(b"nowhere to go")
    machine.shared.sweep(100)
    assert open_machine.execute("SELECT state FROM blobs") == [("present",)]
    assert (await open_machine(tmp_path / "b", bucket=True).artifacts.fetch(reference)).is_file()


async def test_a_bucket_that_falls_silent_is_given_up_after_its_time(
    open_machine: Machines, relay: Relay, tmp_path: Path
) -> None:
    reference = await open_machine(tmp_path / "a", bucket=True).artifacts.put_bytes(bytes(MIB))
    machine = open_machine(
        tmp_path / "b",
        bucket=True,
        endpoint=endpoint_of(relay),
        artifact_retries=1,
        artifact_timeout_seconds=1,
    )
    relay.fall_silent()
    async with asyncio.timeout(30):
        with pytest.raises(UnavailableError, match="cannot be read"):
            await machine.artifacts.fetch(reference)
    relay.heal()
    assert (await machine.artifacts.fetch(reference)).stat().st_size == MIB


async def test_small_files_stay_in_the_database_beside_a_bucket(
    open_machine: Machines, tmp_path: Path
) -> None:
    one = open_machine(tmp_path / "a", bucket=True, artifact_inline_bytes=1000)
    small = await one.artifacts.put_bytes(bytes(1000))
    large = await one.artifacts.put_bytes(bytes(1001))
    assert len(open_machine.server.keys(open_machine.bucket)) == 1
    two = open_machine(tmp_path / "b", bucket=True, artifact_inline_bytes=0)
    for reference, size in ((small, 1000), (large, 1001)):
        assert (await two.artifacts.fetch(reference)).stat().st_size == size
    without = open_machine(tmp_path / "c")
    assert (await without.artifacts.fetch(small)).is_file()
    with pytest.raises(NotFoundError, match="bucket"):
        await without.artifacts.fetch(large)
