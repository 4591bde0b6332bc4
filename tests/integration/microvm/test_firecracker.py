"""Firecracker: its client against a server that keeps to the published API, and the real thing."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.settings import Settings
from swarm.sandbox.microvm import firecracker
from swarm.sandbox.microvm import firecracker_api as api
from swarm.sandbox.microvm.backend import MicrovmBackend
from swarm.sandbox.ports import Limits, SandboxRequest
from tests.contract.sandbox.calling import CONTEXT, MEBIBYTE, RecordingServices
from tests.integration.microvm import machines

LIMITS = Limits(memory_bytes=128 * MEBIBYTE, timeout_seconds=60)


class ApiServer:
    """Answers as Firecracker does: 204 and no body, or 400 and a fault."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.fault: str | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                size = next(int(line[16:]) for line in head if line.startswith("Content-Length: "))
                method, path, _ = head[0].split()
                self.calls.append((method, path, json.loads(await reader.readexactly(size))))
                if self.fault is None:
                    writer.write(b"HTTP/1.1 204 \r\nServer: Firecracker API\r\n\r\n")
                else:
                    body = json.dumps({"fault_message": self.fault}).encode()
                    head_out = b"HTTP/1.1 400 \r\nContent-Length: %d\r\n\r\n" % len(body)
                    writer.write(head_out + body)
        except asyncio.IncompleteReadError:
            writer.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    made = ApiServer()
    folder = os.open(tmp_path, os.O_PATH)
    listening = await asyncio.start_unix_server(
        made.serve, f"/proc/self/fd/{folder}/{api.API_SOCKET}"
    )
    os.close(folder)
    yield made
    listening.close()


@pytest.mark.everyday
async def test_calls_are_made_in_order_on_one_connection(server: ApiServer, tmp_path: Path) -> None:
    calls = api.boot_calls(256)
    await firecracker._ask(tmp_path, calls)
    assert server.calls == [(call.method, call.path, call.body) for call in calls]


@pytest.mark.everyday
async def test_a_refusal_is_told(server: ApiServer, tmp_path: Path) -> None:
    server.fault = "Invalid memory size"
    with pytest.raises(SandboxUnavailable, match="PUT /machine-config: Invalid memory size"):
        await firecracker._ask(tmp_path, api.boot_calls(256))
    assert len(server.calls) == 1


async def test_a_real_guest_serves_a_call(settings: Settings, tmp_path: Path) -> None:
    try:
        firecracker.find_firecracker()
    except SandboxUnavailable as error:
        pytest.skip(error.message)
    code = "def handler(inputs):\n    return inputs\n"
    program = machines.program(tmp_path / "package", {"main.py": code}, "python", "main.py")
    chosen = replace(settings, microvm_monitor="firecracker")
    backend = MicrovmBackend(chosen)
    try:
        sandbox = await backend.prepare(SandboxRequest(program, LIMITS))
        result = await sandbox.call({"n": 1}, CONTEXT, RecordingServices())
        assert result.outputs == {"n": 1}, result
        assert "microvm-firecracker" in sandbox.layers
        await sandbox.destroy()
    finally:
        await backend.close()


async def test_where_it_cannot_run_it_is_refused_with_a_remedy(
    settings: Settings, tmp_path: Path
) -> None:
    """It was asked for, so QEMU does not take its place."""
    if firecracker.can_run():
        pytest.skip("Firecracker runs here")
    program = machines.program(tmp_path / "package", {"main.py": ""}, "python", "main.py")
    backend = MicrovmBackend(replace(settings, microvm_monitor="firecracker"))
    with pytest.raises(SandboxUnavailable, match="Firecracker") as caught:
        await backend.prepare(SandboxRequest(program, LIMITS))
    assert "SWARM_MICROVM_MONITOR" in (caught.value.remedy or "")
    await backend.close()
