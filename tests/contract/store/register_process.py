"""Registers packages when told to: ``register_process.py <address> <home> <name>``.

Prints ``ready``, waits for a line, registers an agent (many versions of it, each with a digest that
all processes share and one of its own) and a workflow, and prints the ids that it was given.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from swarm.kernel.ids import new_id
from swarm.kernel.settings import Settings
from swarm.store.records import AgentRecord, GrantRecord, WorkflowRecord
from tests.contract.store.backends import open_at

VERSIONS = 20


async def main(address: str, home: Path, name: str) -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    store = await open_at(address, Settings(home=home))
    ids = []
    for number in range(VERSIONS):
        version = f"1.{number}.0"
        shared, own = (
            AgentRecord(new_id("agent"), "echo", version, digest, "/p", "/s", {"name": "echo"})
            for digest in (f"sha256:shared{number}", f"sha256:{name}{number}")
        )
        await store.add_agent(own)
        grant = GrantRecord(new_id("grant"), shared.digest, "network", "a.example")
        ids.append((await store.add_agent(shared, [grant])).id)
    workflow = WorkflowRecord(new_id("wf"), "chain", "1.0.0", "sha256:w", "/s", {"steps": []})
    ids.append((await store.add_workflow(workflow)).id)
    await store.close()
    sys.stdout.write(" ".join(ids) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
