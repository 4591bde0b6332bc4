"""What goes over one stream does not stop what else does."""

from __future__ import annotations

import asyncio
import json
import socket

from swarm.kernel.json import JsonObject
from swarm.sandbox.microvm.agent.frames import CONTROL, WIRE, frame
from swarm.sandbox.microvm.stream import GuestStream
from swarm.sandbox.microvm.wiring import StreamSession
from swarm.sandbox.ports import Limits
from tests.contract.sandbox.calling import RecordingServices


async def test_after_the_answer_the_stream_is_read_on() -> None:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_unix_connection(GuestStream, sock=ours)
    session = StreamSession(stream, Limits(memory_bytes=1 << 20, timeout_seconds=1))
    ended: asyncio.Future[JsonObject] = loop.create_future()
    stream.on_messages(ended.set_result)
    answer = session.call(("main.py",), {}, {}, RecordingServices())
    said = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"outputs": {"n": 1}}}).encode()
    theirs.sendall(frame(WIRE, len(said).to_bytes(4, "big") + said))
    async with asyncio.timeout(10):
        assert (await answer).outputs == {"n": 1}
        theirs.sendall(frame(CONTROL, b'{"event": "ended"}'))
        assert await ended == {"event": "ended"}
    session.close()
    stream.close()
    theirs.close()
