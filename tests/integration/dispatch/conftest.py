"""Real host processes for the tests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm.dispatch.local_hosts import LocalHosts

PROGRAM = Path(__file__).with_name("host_process.py")


@dataclass(frozen=True, slots=True)
class HostProcess:
    process: asyncio.subprocess.Process
    id: str
    heir: int | None
    """Process id of the one that inherited the lock."""

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def leave(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        assert await self.process.wait() == 0


StartHost = Callable[..., Awaitable[HostProcess]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "hosts"


@pytest.fixture
def hosts(folder: Path) -> LocalHosts:
    return LocalHosts(folder)


@pytest.fixture
async def start_host(folder: Path) -> AsyncIterator[StartHost]:
    """Starts a host in a process of its own; the options are those of its program."""
    started: list[asyncio.subprocess.Process] = []

    async def start(role: str, *options: str, in_folder: Path = folder) -> HostProcess:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            str(in_folder),
            role,
            *options,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout
        words = (await process.stdout.readline()).decode().split()
        return HostProcess(process, words[0], int(words[1]) if len(words) > 1 else None)

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()
