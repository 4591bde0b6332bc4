"""The network of a virtual machine: what was granted, through the proxy, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from swarm.kernel.settings import Settings
from swarm.sandbox.microvm.backend import MicrovmBackend
from swarm.sandbox.ports import Limits, Outcome, SandboxRequest
from tests.contract.sandbox.calling import CONTEXT, MEBIBYTE, RecordingServices
from tests.integration.microvm import machines

LIMITS = Limits(memory_bytes=128 * MEBIBYTE, timeout_seconds=120)
GET = """
import hashlib, socket, threading, urllib.error, urllib.request

def get(url):
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return hashlib.sha256(answer.read()).hexdigest()
    except urllib.error.HTTPError as error:
        return error.code

def handler(inputs):
    try:
        socket.create_connection(("1.1.1.1", 80), 5)
        direct = "connected"
    except OSError as error:
        direct = error.strerror
    found = {}
    threads = [threading.Thread(target=lambda n=n, u=u: found.update({n: get(u)}))
               for n, u in inputs["urls"].items()]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return {"direct": direct, **found}
"""
BODY = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(BODY).hexdigest()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server whose answers are larger than what may be under way."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        writer.write(head + BODY)
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def test_granted_hosts_are_reached_and_others_are_not(
    settings: Settings, tmp_path: Path
) -> None:
    allowed = replace(settings, allowed_private_networks=("127.0.0.0/8",))
    backend = MicrovmBackend(allowed)
    program = machines.program(tmp_path / "package", {"main.py": GET}, "python", "main.py")
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    services = RecordingServices()
    try:
        request = SandboxRequest(program, LIMITS, network=("localhost",))
        sandbox = await backend.prepare(request)
        good = f"http://localhost:{port}/"
        urls = {"one": good, "two": good, "three": good, "other": "http://example.com/"}
        result = await sandbox.call({"urls": urls}, CONTEXT, services)
        await sandbox.destroy()
    finally:
        server.close()
        await backend.close()
    assert result.outcome is Outcome.OK, result
    outputs: Any = result.outputs
    assert outputs["direct"] == "Network is unreachable"
    assert outputs["one"] == outputs["two"] == outputs["three"] == DIGEST
    assert outputs["other"] == 403
    assert "example.com" in services.text
