"""Machines that share one database, and perhaps a bucket: each has a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from swarm.kernel.configuration import checked_settings
from swarm.kernel.settings import MIB, Settings
from swarm.store.postgres.blobs import PostgresBlobs
from swarm.store.shared.cache import CachedArtifacts
from swarm.store.shared.files import SharedFiles
from swarm.store.shared.ports import BlobBytes, Place
from swarm.store.shared.s3 import BucketBytes
from tests.bucket.server import BucketServer


@dataclass(frozen=True, slots=True)
class Machine:
    """What one process of one machine has open."""

    artifacts: CachedArtifacts
    shared: SharedFiles
    index: PostgresBlobs


def opened_machine(root: Path, settings: Settings) -> Machine:
    """A machine with these settings; whoever opens it closes ``shared``."""
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    index = PostgresBlobs(url, settings)
    places: dict[Place, BlobBytes] = {"database": index}
    if settings.artifact_url is not None:
        places["bucket"] = BucketBytes(settings)
    shared = SharedFiles(index, places, settings)
    limit = settings.artifact_cache_mb * MIB
    return Machine(CachedArtifacts(root, shared, limit), shared, index)


class Machines:
    """Opens machines at one database."""

    def __init__(self, url: str, server: Callable[[], BucketServer], home: Path) -> None:
        """``url`` is the database's; ``server`` starts the server of buckets, if it is asked."""
        self.url = url
        self._server = server
        self._home = home
        self._closing = ExitStack()
        self._bucket: str | None = None

    @property
    def server(self) -> BucketServer:
        return self._server()

    @property
    def bucket(self) -> str:
        """The bucket that those of the machines share that have one."""
        if self._bucket is None:
            self._bucket = self.server.create_bucket()
        return self._bucket

    def given(self, *, bucket: bool = False, endpoint: str | None = None) -> dict[str, Any]:
        """The settings of a machine, as JSON can hold them."""
        given: dict[str, Any] = {
            "home": str(self._home),
            "database_url": self.url,
            "artifact_inline_bytes": 0,
        }
        if bucket:
            given |= {
                "artifact_url": self.server.url(self.bucket, "team/one", endpoint),
                "artifact_access_key_id": self.server.access_key_id,
                "artifact_secret_access_key": self.server.secret_access_key,
            }
        return given

    def __call__(
        self, root: Path, *, bucket: bool = False, endpoint: str | None = None, **settings: Any
    ) -> Machine:
        """Open a machine whose copies are in the folder ``root``."""
        given = {**self.given(bucket=bucket, endpoint=endpoint), **settings}
        machine = opened_machine(root, checked_settings(given))
        self._closing.callback(machine.shared.close)
        return machine

    def execute(self, statement: LiteralString) -> list[tuple[Any, ...]]:
        """Execute SQL in the database, as no machine would; its rows."""
        with closing(psycopg.connect(self.url, autocommit=True)) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def age(self, seconds: float) -> None:
        """Have all that was touched be touched so much earlier."""
        self.execute(f"UPDATE blobs SET touched_at = touched_at - interval '{seconds} seconds'")

    def close(self) -> None:
        self._closing.close()
