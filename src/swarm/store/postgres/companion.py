"""What rides along in the transactions of the store.

A companion's changes are made with the store's, or not at all: so a run and the job that drives it
are recorded together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from swarm.store.records import RunRecord
from swarm.store.sql.connection import Connection


class Companion(Protocol):
    """Called within a transaction, on the thread of a writer.

    The transaction may be run again (another one was in its way, the connection was lost): it has
    effects through ``connection`` only. An error that it raises undoes what it was called for.
    """

    def created(self, connection: Connection, runs: Sequence[RunRecord]) -> None:
        """These runs are being recorded; none of them stood before.

        They may be those of several callers: it raises no SwarmError of its own, which would be
        answered to all of them.
        """
        ...

    def awakened(self, connection: Connection, run_ids: Sequence[str]) -> None:
        """Something has come that these runs may wait for: an answer, an event, a cancellation."""
        ...

    def released(self, connection: Connection, run_id: str, run: Mapping[str, Any]) -> None:
        """The run is being given up, with these fields set as they are stored (``wake_at``)."""
        ...
