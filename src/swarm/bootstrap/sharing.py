"""All files of a home at once: published for other machines, or brought from them.

For a home that moves between SQLite, where its files are its own, and a database that machines
share. Each file that is there already costs a look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from msgspec.structs import replace

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.bootstrap.database import Kind
from swarm.bootstrap.marks import marked, marked_outside_runs
from swarm.engine.trees import listed_artifacts
from swarm.kernel.errors import InvalidError, NotFoundError, SwarmError
from swarm.kernel.settings import Settings
from swarm.store.artifacts import LocalArtifacts
from swarm.store.ports import ArtifactStore
from swarm.store.records import AgentRecord
from swarm.store.shared.files import SharedFiles

WITHOUT_BOUND_MB = 1 << 40


@dataclass(frozen=True, slots=True)
class Moved:
    """What was published, or brought."""

    packages: int
    artifacts: int
    missing: tuple[str, ...]
    """What is referred to and could not be had, a line for each."""


async def move_files(settings: Settings, to: Kind) -> Moved:
    """Move the files of a home whose records were copied ``to`` a database.

    Args:
        settings: ``database_url`` is the PostgreSQL, from which or to which they were copied.
        to: where the records are to be used.

    Raises:
        RefusedError: one is larger than the database is to hold, and there is no bucket.
        UnavailableError: what is shared cannot be read or written.
    """
    # What is brought into the home is to stay there, however much it is.
    roomy = replace(settings, artifact_cache_mb=WITHOUT_BOUND_MB)
    async with open_swarm(roomy, role="run") as swarm:
        return await (publish_home(swarm) if to == "postgresql" else bring_home(swarm))


async def publish_home(swarm: Swarm) -> Moved:
    """Publish the packages and artifacts of the home that its records refer to.

    Raises:
        InvalidError: the home's database is its own.
        RefusedError: one is larger than the database is to hold, and there is no bucket.
        UnavailableError: one cannot be published.
    """
    shared = _shared(swarm)
    local = LocalArtifacts(swarm.home.artifacts)

    def publish(reference: str) -> None:
        with local.path(reference).open("rb") as source:
            shared.publish("artifact", reference.partition(":")[2], source)

    packages, lost = await _packages(swarm, swarm.agents.publish)
    artifacts, missing = await _artifacts(swarm, shared, local, publish)
    return Moved(packages, artifacts, (*lost, *missing))


async def bring_home(swarm: Swarm) -> Moved:
    """Have the home hold every package, environment and artifact that its records refer to.

    Raises:
        InvalidError: the home's database is its own.
        UnavailableError: what is shared cannot be read.
    """
    shared = _shared(swarm)

    def bring(reference: str) -> None:
        swarm.artifacts.path(reference)

    packages, lost = await _packages(swarm, swarm.agents.prepare)
    artifacts, missing = await _artifacts(swarm, shared, swarm.artifacts, bring)
    return Moved(packages, artifacts, (*lost, *missing))


async def _packages(
    swarm: Swarm, move: Callable[[AgentRecord], Awaitable[object]]
) -> tuple[int, list[str]]:
    """Move the packages of all agents that are registered; how many, and what is missing."""
    count, missing = 0, []
    for record in await swarm.store.list_agents():
        try:
            await move(record)
            count += 1
        except SwarmError as error:
            missing.append(f"{record.name}@{record.version}: {error.message}")
    return count, missing


async def _artifacts(
    swarm: Swarm, shared: SharedFiles, where: ArtifactStore, move: Callable[[str], None]
) -> tuple[int, list[str]]:
    """Move all artifacts that records name, and the files of directories among them."""
    named, _ = await marked(swarm.store, "")
    named |= await marked_outside_runs(swarm.store)
    count, missing = 0, []
    waiting = sorted(named)
    while waiting:
        reference = waiting.pop()
        try:
            await shared.do(move, reference)
            count += 1
        except NotFoundError as error:
            missing.append(error.message)
            continue
        parts = set(await asyncio.to_thread(listed_artifacts, where, reference))
        waiting += sorted(parts - named)
        named |= parts
    return count, missing


def _shared(swarm: Swarm) -> SharedFiles:
    if swarm.shared is None:
        raise InvalidError(
            "this home's database is its own: there are no other machines",
            remedy="set SWARM_DATABASE_URL=postgresql://user:password@host/name",
        )
    return swarm.shared
