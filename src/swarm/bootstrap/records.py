"""A home opened only to look at its records.

Lists and details must come at once, so this loads neither the engine nor packages nor sandboxes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from swarm.bootstrap.artifacts import open_artifacts
from swarm.bootstrap.database import open_database
from swarm.bootstrap.peers import open_peers
from swarm.dispatch.ports import Peers
from swarm.engine.lookup import find_run
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.grants import Permissions, collect_grants
from swarm.packages.references import AGENTS, WORKFLOWS, choose_version
from swarm.store.ports import ArtifactStore, Store
from swarm.store.records import AgentRecord, RunRecord, RunState, WorkflowRecord
from swarm.store.shared.files import SharedFiles


@dataclass(frozen=True, slots=True)
class Records:
    """What a home holds."""

    settings: Settings
    home: Home
    store: Store
    artifacts: ArtifactStore
    shared: SharedFiles | None
    peers: Peers

    async def agent(self, reference: str) -> AgentRecord:
        """The agent called ``name`` or ``name@version``; raises NotFoundError."""
        return choose_version(reference, await self.store.list_agents(), AGENTS)

    async def granted(self, agent: AgentRecord) -> Permissions:
        """What the agent's package is granted."""
        return collect_grants(await self.store.list_grants(agent.digest, agent.project_id))

    async def workflow(self, reference: str) -> WorkflowRecord:
        """The workflow called ``name`` or ``name@version``; raises NotFoundError."""
        return choose_version(reference, await self.store.list_workflows(), WORKFLOWS)

    async def run(self, reference: str) -> RunRecord:
        """The run with this id or start of one; raises NotFoundError or InvalidError."""
        return await find_run(self.store, reference)

    async def orphans(self) -> list[RunRecord]:
        """Runs that have not ended and whose host is gone, or never took them up."""
        spreads = self.peers.spreads
        living: dict[str, bool] = {}
        orphans: list[RunRecord] = []
        after = ""
        while page := await self.store.unfinished_runs(after, begun=spreads):
            after = page[-1].id
            for owner in {run.owner for run in page if run.owner is not None}.difference(living):
                living[owner] = await self.peers.is_alive(owner)
            # In a fleet, those without an owner are in the queue.
            orphans += [
                run for run in page if not (spreads if run.owner is None else living[run.owner])
            ]
        return orphans

    async def is_orphan(self, run: RunRecord) -> bool:
        """Whether this run is one of :meth:`orphans`."""
        if run.status.is_final or (run.status is RunState.WAITING and run.owner is None):
            return False
        if run.owner is None:
            return not self.peers.spreads
        return not await self.peers.is_alive(run.owner)


@asynccontextmanager
async def open_records(settings: Settings) -> AsyncIterator[Records]:
    """Open the home of ``settings`` to look at its records; it is made if it is not there.

    Raises:
        UnavailableError: the home or its database cannot be used.
    """
    home = Home(settings.home)
    home.create()
    kept = open_artifacts(home, settings)
    store = await open_database(home, settings)
    try:
        peers = await open_peers(home, settings, "records")
        try:
            yield Records(settings, home, store, kept.store, kept.shared, peers)
        finally:
            await peers.leave()
    finally:
        await store.close()
        await asyncio.to_thread(kept.close)
