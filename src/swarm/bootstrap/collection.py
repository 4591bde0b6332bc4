"""Packages, environments and artifacts that nothing refers to any more are removed.

Mark and sweep, safe while other processes register and run: the marks are read from the database,
and what is not marked is removed only when it is old. Whoever is about to refer to something that
is there already makes it young first, under a lock that the sweep takes too.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swarm.bootstrap.marks import marked, marked_outside_runs
from swarm.bootstrap.retention import SECONDS_PER_DAY
from swarm.bootstrap.shared_collection import collect_shared
from swarm.engine.trees import TREES, listed_artifacts
from swarm.kernel.clock import ago_text
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.collecting import remove_unused
from swarm.packages.environments import LOCKS
from swarm.store.artifacts import LocalArtifacts
from swarm.store.ports import Store
from swarm.store.shared.files import SharedFiles

SPARE_SECONDS = 3_600.0
"""What is used must be older than the longest invocation by this, to be removed; or by
``unused_days``, where somebody has set that to less."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed."""

    agents: int = 0
    """Records of agents that had been unregistered or replaced."""
    packages: int = 0
    environments: int = 0
    artifacts: int = 0
    artifact_bytes: int = 0


def interval_seconds(settings: Settings) -> float:
    """How long after a collection the next one is due: a day, or less where less is kept."""
    return min(SECONDS_PER_DAY, settings.unused_days * SECONDS_PER_DAY)


def is_due(home: Home, settings: Settings) -> bool:
    """Whether the last collection of this home is long enough ago, or there was none."""
    try:
        return time.time() - _stamp(home).stat().st_mtime > interval_seconds(settings)
    except FileNotFoundError:
        return True


async def collect_unused(
    store: Store,
    home: Home,
    settings: Settings,
    shared: SharedFiles | None = None,
    *,
    if_due: bool = False,
) -> Collected | None:
    """Remove what nothing has referred to for ``unused_days``.

    It can be cancelled anywhere; the next one begins anew.

    Args:
        store: says what is referred to.
        home: whose folders are gone through.
        settings: how long what is unused is kept.
        shared: what machines share, where they do; the home's artifacts are copies then, which go
            by their use (see :mod:`swarm.store.shared.cache`).
        if_due: whether to leave what is shared alone if a machine has collected it lately.

    Returns:
        What was removed, or None if it is switched off or another process is at it.

    Raises:
        DatabaseError: the database cannot be read or written.
        UnavailableError: the bucket cannot be changed; what is to be deleted there is noted.
    """
    if not settings.unused_days:
        return None
    # What a running invocation was given must not go under it.
    unused = settings.unused_days * SECONDS_PER_DAY
    age = max(unused, settings.max_timeout_seconds + min(SPARE_SECONDS, unused))
    before = time.time() - age
    with _alone(home) as is_alone:
        if not is_alone:
            return None
        agents = await store.purge_agents(ago_text(age))
        packages, environments = await store.digests_in_use()
        if shared is None:
            artifacts = await _collect_artifacts(store, home, before)
        else:
            interval = interval_seconds(settings) if if_due else None
            artifacts = await collect_shared(store, shared, age, interval)
        collected = Collected(
            agents,
            await remove_unused(home.packages, packages, before),
            await remove_unused(home.environments, environments, before),
            *artifacts,
        )
        await asyncio.to_thread(_remove_locks, home.environments / LOCKS, packages, before)
        await asyncio.to_thread(_remove_trees, home.cache / TREES, before)
        _stamp(home).touch()
    return collected


async def _collect_artifacts(store: Store, home: Home, before: float) -> tuple[int, int]:
    artifacts = LocalArtifacts(home.artifacts)
    in_use, newest = await marked(store, "")
    in_use |= await marked_outside_runs(store)
    in_use |= await asyncio.to_thread(_parts, artifacts, in_use)
    # Runs that were created meanwhile may name artifacts that only they know.
    more, _ = await marked(store, newest)
    in_use |= more | await asyncio.to_thread(_parts, artifacts, more)
    count = size = 0
    for shard in await asyncio.to_thread(artifacts.shards):
        removed = await asyncio.to_thread(artifacts.remove_unused, shard, in_use, before)
        count, size = count + removed[0], size + removed[1]
    return count, size


def _parts(artifacts: LocalArtifacts, references: set[str]) -> set[str]:
    """The files of those among the artifacts that are directories."""
    return {part for one in references for part in listed_artifacts(artifacts, one)}


def _remove_locks(folder: Path, packages: frozenset[str], before: float) -> None:
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if file.name.partition("-")[0] not in packages and file.stat().st_mtime < before:
            file.unlink(missing_ok=True)


def _remove_trees(folder: Path, before: float) -> None:
    if not folder.is_dir():
        return
    for tree in folder.iterdir():
        if tree.stat().st_mtime < before:
            shutil.rmtree(tree, ignore_errors=True)


def _stamp(home: Home) -> Path:
    return home.hosts.parent / "collected"


@contextmanager
def _alone(home: Home) -> Iterator[bool]:
    """Whether this is the one process of the home that collects; it is until the end."""
    path = home.hosts.parent / "collecting.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
