"""What happens to files in the database when connections to it are cut, or it is away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from swarm.kernel.errors import DatabaseError
from swarm.kernel.settings import MIB
from tests.bucket.machines import Machine, Machines
from tests.bucket.relay import Relay
from tests.postgres.bouncer import find_bouncer, running_bouncer
from tests.postgres.server import PostgresServer


@pytest.fixture
def relay(open_machine: Machines) -> Iterator[Relay]:
    """Between machines and the database server."""
    relay = Relay(urlsplit(open_machine.url).port or 0)
    yield relay
    relay.close()


def far_machine(machines: Machines, relay: Relay, root: Path, **settings: object) -> Machine:
    """A machine that reaches the database through the relay."""
    port = urlsplit(machines.url).port
    url = machines.url.replace(f":{port}/", f":{relay.port}/")
    return machines(root, database_url=url, **settings)


async def test_connections_that_are_cut_are_made_again(
    open_machine: Machines, relay: Relay, tmp_path: Path
) -> None:
    data = os.urandom(5 * MIB + 1)
    far = far_machine(open_machine, relay, tmp_path / "a")
    # In the middle of connecting, of finding out what is there, of noting the upload.
    relay.cut_after(10, 700, 900, 1_100)
    reference = await far.artifacts.put_bytes(data)
    assert relay.accepted >= 4
    far.artifacts.evict(0)
    far.index.close()
    far = far_machine(open_machine, relay, tmp_path / "b")
    relay.cut_after(50_000, MIB + 5_000, 3 * MIB)
    assert (await far.artifacts.fetch(reference)).read_bytes() == data
    assert open_machine.execute("SELECT state, count(*) FROM blobs GROUP BY state") == [
        ("present", 1)
    ]


async def test_a_database_that_is_away_is_told_and_nothing_is_left(
    open_machine: Machines, relay: Relay, tmp_path: Path
) -> None:
    far = far_machine(open_machine, relay, tmp_path / "a", artifact_retries=1)
    reference = await far.artifacts.put_bytes(b"known")
    relay.refuse()
    with pytest.raises(DatabaseError, match=r"cannot be reached|lost"):
        await far.artifacts.put_bytes(b"unknown")
    assert far.artifacts.path(reference).read_bytes() == b"known"  # what is here needs nobody
    relay.heal()
    assert await far.artifacts.put_bytes(b"unknown") != reference


async def test_behind_a_pooler_that_shares_connections(
    open_machine: Machines, postgres: PostgresServer, tmp_path: Path
) -> None:
    program = find_bouncer()
    if program is None:
        pytest.skip("PgBouncer is missing (Debian, Ubuntu: apt-get install pgbouncer)")
    with running_bouncer(postgres, program) as bouncer:
        url = open_machine.url.replace(f":{postgres.port}/", f":{bouncer.port}/")
        one, two = [open_machine(tmp_path / name, database_url=url) for name in ("a", "b")]
        contents = [os.urandom(MIB + number) for number in range(12)]
        references = await asyncio.gather(*map(one.artifacts.put_bytes, contents))
        paths = await asyncio.gather(*map(two.artifacts.fetch, references))
        assert [path.read_bytes() for path in paths] == contents
        with one.index.alone() as first, two.index.alone() as second:
            assert (first, second) == (True, False)
        one.shared.close()
        two.shared.close()
