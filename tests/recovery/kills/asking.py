"""Asks much of Swarm at once, as programs do that use the engine; it may be killed meanwhile.

``ask FILE``: the file holds JSON objects, a line each, all of which are asked for at once. What was
accepted is told at once, too: ``started <line> <run>`` or ``done <line>``; ``refused <line> <why>``
otherwise.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.engine.api import RunRequest
from swarm.kernel.configuration import load_settings
from swarm.kernel.errors import SwarmError
from swarm.kernel.json import JsonObject
from swarm.sandbox.ports import Isolation

NAME = "ask"


def main() -> None:
    requests = [json.loads(line) for line in Path(sys.argv[2]).read_text().splitlines()]
    try:
        asyncio.run(_ask_all(requests))
    except SwarmError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


async def _ask_all(requests: list[JsonObject]) -> None:
    async with open_swarm(load_settings(), role="run") as swarm:
        await asyncio.gather(
            *(_ask(swarm, number, request) for number, request in enumerate(requests))
        )


async def _ask(swarm: Swarm, number: int, request: JsonObject) -> None:
    try:
        told = await _asked(swarm, number, request)
    except SwarmError as error:
        told = f"refused {number} {error}"
    sys.stdout.write(told.replace("\n", " ") + "\n")
    sys.stdout.flush()


async def _asked(swarm: Swarm, number: int, request: JsonObject) -> str:
    match request["kind"]:
        case "start":
            run = await swarm.runs.create(
                RunRequest(
                    request["workflow"],
                    request["inputs"],
                    isolation=Isolation(request["isolation"]),
                    idempotency_key=request["key"],
                )
            )
            return f"started {number} {run.id}"
        case "answer":
            await swarm.runs.answer(
                request["run_id"],
                request["step"],
                approved=request["approved"],
                values=request["values"],
                by=request["by"],
            )
        case "event":
            await swarm.runs.send_event(
                request["name"], request["key"], request["payload"], request["id"]
            )
        case "cancel":
            await swarm.runs.cancel(request["run_id"])
    return f"done {number}"
