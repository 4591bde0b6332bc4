"""The other processes that drive runs: those of the home, or those that share its PostgreSQL."""

from __future__ import annotations

from typing import Any

from swarm import __version__
from swarm.bootstrap.database import extra_module
from swarm.dispatch.local_hosts import LocalHosts
from swarm.dispatch.local_peers import LocalPeers
from swarm.dispatch.ports import Peers
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.store.records import RUN_FORMAT


async def open_peers(
    home: Home, settings: Settings, role: str, labels: tuple[str, ...] = ()
) -> Peers:
    """Find the peers of a process; it joins them when it first drives a run.

    Args:
        home: where the hosts of one machine find each other.
        settings: ``database_url`` chooses the fleet of that database.
        role: what this process is once it has joined.
        labels: what it has that runs may ask for.

    Raises:
        UnavailableError: the database cannot be used.
        InvalidError: there are too many labels.
    """
    url = settings.database_listen_url or settings.database_url
    if url is None:
        return LocalPeers(LocalHosts(home.hosts), role)
    fleet = extra_module("swarm.dispatch.fleet.peers")
    options = fleet.FleetOptions(
        url.get_secret_value(), role, __version__, labels, settings.lease_seconds, RUN_FORMAT
    )
    peers: Any = fleet.FleetPeers(options)
    await peers.prepare()
    made: Peers = peers
    return made


def companions(settings: Settings) -> dict[str, Any]:
    """What rides along in the transactions of a shared database: the jobs of new runs."""
    if settings.database_url is None:
        return {}
    return {"companions": (extra_module("swarm.dispatch.fleet.companion").FleetCompanion(),)}
