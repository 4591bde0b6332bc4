"""A home's whole life under the recorder: ``home_program.py <root> <sources>``.

Makes the home ``<root>/home``, registers the agents and workflows below ``<sources>``, keeps
artifacts, and drives runs, several at once. Each promise that was given is a line in
``<root>/told``: ``agent NAME``, ``workflow NAME``, ``artifact REFERENCE``, ``run ID`` or
``ended ID``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.engine.api import RunRequest
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation

RUNS_OF_EACH = 2
ARTIFACTS = 12


async def main(root: Path, sources: Path) -> None:
    told = os.open(root / "told", os.O_WRONLY | os.O_APPEND)

    def tell(*words: str) -> None:
        os.write(told, (" ".join(words) + "\n").encode())

    async def run(swarm: Swarm, workflow: str, number: int) -> None:
        request = RunRequest(workflow, {"number": number}, isolation=Isolation.NONE)
        created = await swarm.runs.create(request)
        tell("run", created.id)
        await swarm.runs.start(created.id)
        ended = await swarm.runs.wait(created.id)
        assert ended.status.is_final
        tell("ended", created.id)

    async def keep(swarm: Swarm, number: int) -> None:
        tell("artifact", await swarm.artifacts.put_bytes(f"artifact {number}\n".encode() * 300))

    async with open_swarm(Settings(home=root / "home"), role="run") as swarm:
        for folder in sorted((sources / "agents").iterdir()):
            await swarm.agents.register(folder)
            tell("agent", folder.name)
        flows = sorted(sources.glob("*.yaml"))
        for file in flows:
            await swarm.workflows.register(file)
            tell("workflow", file.stem)
        await asyncio.gather(
            *(keep(swarm, number % (ARTIFACTS - 2)) for number in range(ARTIFACTS)),
            *(run(swarm, file.stem, 7 * n) for n in range(RUNS_OF_EACH) for file in flows),
        )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
