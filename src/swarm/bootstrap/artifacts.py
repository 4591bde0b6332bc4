"""Where packages and artifacts are: in the home alone, or shared by the machines of a database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module

from swarm.bootstrap.database import postgres_module
from swarm.kernel.errors import InvalidError, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.settings import MIB, Settings
from swarm.store.artifacts import LocalArtifacts
from swarm.store.ports import ArtifactStore, DirectoryLimits
from swarm.store.shared.cache import CachedArtifacts
from swarm.store.shared.files import SharedFiles
from swarm.store.shared.ports import BlobBytes, Place


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The artifacts of a home, and what its machine shares with others, if it does."""

    store: ArtifactStore
    shared: SharedFiles | None
    close: Callable[[], None]


def open_artifacts(home: Home, settings: Settings) -> Artifacts:
    """Open the artifacts of ``home``. Nothing is connected to yet.

    Raises:
        InvalidError: ``artifact_url`` cannot be used, or there is no ``database_url`` with it.
        UnavailableError: a driver is not installed.
    """
    if settings.database_url is None:
        if settings.artifact_url is not None:
            raise InvalidError(
                "artifact_url is set, and no database_url: a bucket is for machines that share a "
                "PostgreSQL database",
                remedy="set SWARM_DATABASE_URL, or unset SWARM_ARTIFACT_URL",
            )
        return Artifacts(LocalArtifacts(home.artifacts), None, lambda: None)
    url = settings.database_url.get_secret_value()
    with ExitStack() as failing:
        blobs = postgres_module("blobs").PostgresBlobs(url, settings)
        failing.callback(blobs.close)
        places: dict[Place, BlobBytes] = {"database": blobs}
        if settings.artifact_url is not None:
            places["bucket"] = open_bucket(settings)
        shared = SharedFiles(blobs, places, settings)
        failing.pop_all()
    limits = DirectoryLimits(settings.max_directory_files, settings.max_directory_mb * MIB)
    cached = CachedArtifacts(home.artifacts, shared, settings.artifact_cache_mb * MIB, limits)
    return Artifacts(cached, shared, shared.close)


def open_bucket(settings: Settings) -> BlobBytes:
    """The bucket of ``artifact_url``; its module is imported late, because it needs an extra.

    Raises:
        InvalidError: ``artifact_url`` cannot be used.
        UnavailableError: obstore is not installed.
    """
    try:
        module = import_module("swarm.store.shared.s3")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "obstore":
            raise
        raise UnavailableError(
            "what speaks to buckets is not installed",
            remedy="install Swarm with the extra `s3`: pip install 'swarm-runtime[s3]'",
        ) from None
    bucket: BlobBytes = module.BucketBytes(settings)
    return bucket
