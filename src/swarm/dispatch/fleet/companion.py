"""Gives new runs their jobs in the very transaction that records them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from swarm.dispatch.fleet.queue import ENQUEUE, enqueue_values
from swarm.dispatch.ports import Placement, RunRow, is_spread

_ENQUEUE: Final = ENQUEUE.replace("%s", "?")


class Executing(Protocol):
    """The store's connection, within its transaction."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> object: ...


class FleetCompanion:
    """Rides along in the store's transactions."""

    def created(self, connection: Executing, runs: Sequence[RunRow]) -> None:
        """Enqueue the runs that were recorded."""
        placed = [
            Placement(run.id, run.priority, run.runs_on, run.format_version)
            for run in runs
            if is_spread(run)
        ]
        if placed:
            connection.execute(_ENQUEUE, enqueue_values(placed))

    def awakened(self, connection: Executing, run_ids: Sequence[str]) -> None:
        """Whoever gave the answer or the event wakes the runs."""

    def released(self, connection: Executing, run_id: str, changes_run: Mapping[str, Any]) -> None:
        """The host that gave the run up sets its alarm."""
