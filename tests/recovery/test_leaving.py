"""A process stops driving runs while a handler still runs in it, which nothing can kill."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.dispatch.local_hosts import LocalHosts
from swarm.engine.api import RunRequest
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunState

AGENT = """\
name: talker
version: 1.0.0
runtime: {type: python, entry: main.py}
inputs: [{name: port, type: integer}]
"""
HANDLER = """\
import socket

def handler(inputs, context):
    with socket.create_connection(("127.0.0.1", inputs["port"])) as other:
        other.sendall(f"{context.attempt}\\n".encode())
        other.recv(1)
    return {}
"""
FLOW = """\
name: talk
version: 1.0.0
inputs: [{name: port, type: integer}]
steps: [{id: only, agent: talker, inputs: {port: "${inputs.port}"}}]
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Where the handler says which attempt it is, and waits until it may end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def test_its_run_is_taken_over_only_once_the_handler_has_ended(
    tmp_path: Path, listener: socket.socket
) -> None:
    settings = Settings(home=tmp_path / "home")
    inputs = {"port": listener.getsockname()[1]}
    async with open_swarm(settings, role="run") as first:
        await register(first, tmp_path)
        request = RunRequest("talk", inputs, isolation=Isolation.NONE)
        run = await first.runs.create(request)
        await first.runs.start(run.id)
        connection, attempt = await accept(listener)
        assert attempt == 1
        owner = (await first.runs.get(run.id)).owner
    assert owner is not None
    async with open_swarm(settings, role="run") as second:
        assert await second.runs.resume() == []
        connection.close()
        await LocalHosts(second.home.hosts).wait_gone(owner)
        (resumed,) = await second.runs.resume()
        connection, attempt = await accept(listener)
        assert attempt == 2
        connection.close()
        assert (await second.runs.wait(resumed.id)).status is RunState.SUCCEEDED


async def register(swarm: Swarm, folder: Path) -> None:
    package = folder / "talker"
    package.mkdir()
    (package / "agent.yaml").write_text(AGENT)
    (package / "main.py").write_text(HANDLER)
    (folder / "talk.yaml").write_text(FLOW)
    await swarm.agents.register(package)
    await swarm.workflows.register(folder / "talk.yaml")


async def accept(listener: socket.socket) -> tuple[socket.socket, int]:
    connection, _ = await asyncio.to_thread(listener.accept)
    return connection, int(await asyncio.to_thread(connection.recv, 16))
