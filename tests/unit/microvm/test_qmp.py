"""QEMU's control connection, against a QEMU that keeps to the protocol and is unlucky."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from swarm.kernel.errors import SandboxUnavailable
from swarm.sandbox.microvm.qmp import Qmp


class Qemu:
    """The other end of a control connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def say(self, **message: object) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    def migration(self, status: str) -> None:
        self.say(event="MIGRATION", data={"status": status})

    async def hear(self) -> str:
        command: str = json.loads(await self._reader.readline())["execute"]
        return command


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Qmp, Qemu]]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    qemu = Qemu(reader, writer)
    qemu.say(QMP={"version": {}})

    async def greet() -> None:
        assert await qemu.hear() == "qmp_capabilities"
        qemu.say(**{"return": {}})

    qmp, _ = await asyncio.gather(Qmp.open(ours, seconds=0.3), greet())
    yield qmp, qemu
    qmp.close()
    writer.close()


async def test_events_that_come_before_an_answer_are_not_lost(pair: tuple[Qmp, Qemu]) -> None:
    """All is complete before QEMU has said that it began."""
    qmp, qemu = pair
    for status in ("setup", "active", "completed"):
        qemu.migration(status)
    qemu.say(**{"return": {}})
    await qmp.execute("migrate-incoming", uri="fd:state")
    await qmp.wait_migrated()


async def test_events_that_come_after_an_answer_are_waited_for(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    qemu.say(**{"return": {}})
    await qmp.execute("migrate", uri="fd:state")
    waiting = asyncio.ensure_future(qmp.wait_migrated())
    for status in ("setup", "active", "device", "completed"):
        await asyncio.sleep(0)
        assert not waiting.done()
        qemu.migration(status)
    await waiting


async def test_a_migration_that_fails_is_told(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    qemu.migration("failed")
    with pytest.raises(SandboxUnavailable, match="could not be carried over"):
        await qmp.wait_migrated()


async def test_a_silent_qemu_is_given_up(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    with pytest.raises(SandboxUnavailable, match=r"cont took longer than 0\.3 seconds"):
        await qmp.execute("cont")
    qemu.migration("active")
    with pytest.raises(SandboxUnavailable, match="the migration took longer"):
        await qmp.wait_migrated()


async def test_a_qemu_that_dies_is_told(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    qemu.writer.close()
    with pytest.raises(SandboxUnavailable, match="it is gone"):
        await qmp.execute("cont")


async def test_a_refusal_is_told(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    qemu.say(error={"class": "GenericError", "desc": "no such thing"})
    with pytest.raises(SandboxUnavailable, match="cont: no such thing"):
        await qmp.execute("cont")
