"""Who is alive is told by locks: with real processes, killed without warning."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from swarm.dispatch.leases import HostInfo, LeaseFolder
from swarm.dispatch.local_hosts import LocalHosts
from swarm.kernel.errors import UnavailableError
from swarm.kernel.ids import new_id

PATIENCE_SECONDS = 20
SWEEP_PROGRAM = Path(__file__).with_name("sweep_process.py")


async def nothing(_method: str, _params: dict[str, Any], _emit: Any) -> None:
    return None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_hosts_are_listed_while_they_live(
    hosts: LocalHosts, start_host: Any, folder: Path
) -> None:
    assert hosts.list() == []
    hosts.sweep()
    first, second = await start_host("run"), await start_host("worker")
    listed = {host.id: (host.role, host.pid) for host in hosts.list()}
    assert listed == {
        first.id: ("run", first.process.pid),
        second.id: ("worker", second.process.pid),
    }
    await first.kill()
    await second.leave()
    assert hosts.list() == []
    assert not hosts.is_alive(first.id)
    assert not hosts.is_alive(second.id)
    assert names(folder) == [], "who leaves sweeps"


async def test_a_killed_host_closes_its_connections_at_once(
    hosts: LocalHosts, start_host: Any, folder: Path
) -> None:
    host = await start_host("run")
    connection = await hosts.connect(host.id)
    waiting = asyncio.ensure_future(connection.request("forever"))
    stream = connection.stream("forever")
    assert await anext(stream) == {"started": True}

    host.process.kill()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await connection.closed()
        with pytest.raises(UnavailableError):
            await waiting
        with pytest.raises(UnavailableError):
            await anext(stream)
        await hosts.wait_gone(host.id)
    assert not hosts.is_alive(host.id)
    with pytest.raises(UnavailableError):
        await connection.request("echo")
    with pytest.raises(UnavailableError):
        await hosts.connect(host.id)
    assert names(folder) == [f"{host.id}.lock", f"{host.id}.sock"]
    hosts.sweep()
    assert names(folder) == []


async def test_who_inherited_the_lock_keeps_the_host_alive(
    hosts: LocalHosts, start_host: Any
) -> None:
    host = await start_host("run", "--heir")
    gone = asyncio.ensure_future(hosts.wait_gone(host.id))
    await host.kill()
    hosts.sweep()
    assert hosts.is_alive(host.id), "its sandboxes may still run"
    assert not gone.done()
    os.kill(host.heir, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await gone
    assert not hosts.is_alive(host.id)


async def test_leaving_does_not_take_the_lock_from_an_heir(
    hosts: LocalHosts, start_host: Any, folder: Path
) -> None:
    host = await start_host("run", "--heir")
    await host.leave()
    assert hosts.is_alive(host.id)
    os.kill(host.heir, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await hosts.wait_gone(host.id)
    hosts.sweep()
    assert names(folder) == []


async def test_stale_files_of_every_kind_are_swept(hosts: LocalHosts, folder: Path) -> None:
    folder.mkdir(parents=True)
    host_id = new_id("host")
    with socket.socket(socket.AF_UNIX) as listener, chdir(folder):
        listener.bind(f"{host_id}.sock")
    (folder / f"{new_id('host')}.lock").write_text('{"role": "run", "pid": 1}')
    (folder / f"{new_id('host')}.lock").write_text("")
    (folder / f"{new_id('host')}.new").write_text("")
    (folder / "somebody-elses").write_text("")
    with pytest.raises(UnavailableError):
        await hosts.connect(host_id)
    lease = await hosts.join(nothing, "run")
    assert [host.id for host in hosts.list()] == [lease.id]
    hosts.sweep()
    assert names(folder) == [f"{lease.id}.lock", f"{lease.id}.sock", "somebody-elses"]
    await lease.leave()
    await lease.leave()
    assert names(folder) == ["somebody-elses"]


@pytest.fixture
async def sweepers(folder: Path) -> AsyncIterator[None]:
    """Two processes that sweep and list all the time."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(SWEEP_PROGRAM),
            str(folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout
        assert await process.stdout.readline() == b"ready\n"
    yield
    for process in processes:
        await process.communicate(b"")
        assert process.returncode == 0


@pytest.mark.usefixtures("sweepers")
async def test_hosts_join_and_leave_while_others_sweep(hosts: LocalHosts, folder: Path) -> None:
    """No host is ever taken for dead while it lives."""
    for _ in range(100):
        lease = await hosts.join(nothing, "run")
        assert hosts.is_alive(lease.id)
        assert lease.id in {host.id for host in hosts.list()}
        assert {f"{lease.id}.lock", f"{lease.id}.sock"} <= set(names(folder))
        await lease.leave()
        assert not hosts.is_alive(lease.id)
    assert names(folder) == []


@pytest.mark.usefixtures("sweepers")
async def test_a_lease_is_never_swept_away_while_it_is_prepared(folder: Path) -> None:
    leases = LeaseFolder(folder)
    leases.create()
    for _ in range(2000):
        host_id, descriptor = leases.prepare()
        leases.publish(HostInfo(host_id, "run", 1), descriptor)
        assert leases.is_alive(host_id)
        os.close(descriptor)


async def test_only_the_owner_can_reach_the_files(hosts: LocalHosts, folder: Path) -> None:
    lease = await hosts.join(nothing, "run")
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {".lock": 0o600, ".sock": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not os.get_inheritable(lease.lock_descriptor)
    # A dying process loses its descriptors by number: the lock is the last.
    others = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    assert lease.lock_descriptor == max(others)
    await lease.leave()


async def test_paths_longer_than_a_socket_address_work(tmp_path: Path, start_host: Any) -> None:
    long = tmp_path.joinpath(*["x" * 60] * 4, "hosts")
    host = await start_host("run", in_folder=long)
    connection = await LocalHosts(long).connect(host.id)
    assert await connection.request("echo", {"a": 1}) == {"a": 1}
    connection.close()


@pytest.mark.parametrize(
    "host_id",
    ["", "host_1", "../../etc/passwd", pytest.param(new_id("host"), id="well-formed")],
)
async def test_ids_of_nobody_are_dead(hosts: LocalHosts, host_id: str) -> None:
    assert not hosts.is_alive(host_id)
    await hosts.wait_gone(host_id)
    with pytest.raises(UnavailableError):
        await hosts.connect(host_id)


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError) as caught:
        await LocalHosts(tmp_path / "file" / "hosts").join(nothing, "run")
    assert caught.value.remedy
