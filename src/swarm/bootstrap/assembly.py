"""Connects the rooms: one open home, with every service that commands and servers use."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from swarm.bootstrap.artifacts import open_artifacts
from swarm.bootstrap.backends import Backends
from swarm.bootstrap.database import open_database
from swarm.bootstrap.peers import companions, open_peers
from swarm.bootstrap.secrets import StoredSecrets
from swarm.dispatch.ports import Peers
from swarm.engine.invocations import Invoker
from swarm.engine.invoker import DirectInvoker
from swarm.engine.pins import Pins
from swarm.engine.runs import RunService
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.registration import AgentCatalog
from swarm.packages.workflows import WorkflowCatalog
from swarm.store.ports import ArtifactStore, Store
from swarm.store.shared.files import SharedFiles


@dataclass(frozen=True, slots=True)
class Swarm:
    """One open home."""

    settings: Settings
    home: Home
    store: Store
    artifacts: ArtifactStore
    shared: SharedFiles | None
    """What the machines of its database share; None of an SQLite home."""
    agents: AgentCatalog
    workflows: WorkflowCatalog
    runs: RunService
    invoker: DirectInvoker
    peers: Peers


@asynccontextmanager
async def open_swarm(
    settings: Settings,
    *,
    role: str,
    labels: tuple[str, ...] = (),
    backends: Backends | None = None,
) -> AsyncIterator[Swarm]:
    """Open the home of ``settings``, made if it is not there, and close it in order.

    Opening neither joins the home's hosts nor starts a sandbox: the first run or invocation does.

    Args:
        settings: where the home is, and its limits.
        role: what this process is once it drives runs; ``worker`` and ``serve`` take over others'.
        labels: what this process has that runs may ask for (on PostgreSQL).
        backends: where sandboxes come from, if not from this machine's own; closed here.

    Raises:
        UnavailableError: the home or its database cannot be used.
    """
    home = Home(settings.home)
    home.create()
    async with AsyncExitStack() as closing:
        store = await open_database(home, settings, **companions(settings))
        closing.push_async_callback(store.close)
        peers = await open_peers(home, settings, role, labels)
        closing.push_async_callback(peers.leave)
        backends = backends or Backends(settings)
        closing.push_async_callback(backends.close)
        kept = open_artifacts(home, settings)
        artifacts = kept.store
        closing.push_async_callback(asyncio.to_thread, kept.close)
        agents = AgentCatalog(store, home, settings, shared=kept.shared)
        workflows = WorkflowCatalog(store, agents, settings)
        pins = Pins(store, agents, workflows, settings.expression_fuel)
        invoker = Invoker(backends, settings, StoredSecrets(store, home, settings))
        runs = RunService(
            store=store,
            artifacts=artifacts,
            pins=pins,
            invoker=invoker,
            peers=peers,
            home=home,
            settings=settings,
            worker_command=worker_command(settings),
            on_join=backends.hold,
        )
        await closing.enter_async_context(runs)
        direct = DirectInvoker(
            store=store,
            artifacts=artifacts,
            pins=pins,
            invoker=invoker,
            cache=home.cache,
            settings=settings,
        )
        yield Swarm(
            settings, home, store, artifacts, kept.shared, agents, workflows, runs, direct, peers
        )


def worker_command(settings: Settings) -> tuple[str, ...]:
    """The command of a worker for this home that ends when idle.

    ``-P`` keeps the current directory off the path: it may be a stranger's repository.
    """
    python = (sys.executable, "-P", "-m", "swarm")
    return (*python, "worker", "--until-idle", "--home", str(settings.home))
