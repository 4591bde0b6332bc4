"""The artifacts of a machine that shares its database: a local copy of what the fleet has.

What is put is published before its reference is given out; what is asked for is fetched once for
the machine, and checked. The copies are bounded: those that were used least recently go, but none
that a call holds. What went comes back when it is asked for.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

from swarm.kernel.errors import NotFoundError, UnavailableError
from swarm.store.artifacts import LocalArtifacts, artifact_digest
from swarm.store.ports import DirectoryLimits
from swarm.store.shared.files import SharedFiles
from swarm.store.shared.leases import Leases

_EVICTED_TO: Final = 0.9
"""The share of the limit that is left after an eviction, so that not each file evicts one."""
_LOOKED_AT: Final = 0.1
"""The share of the limit that a process adds before it looks at the whole again, for other
processes add too."""
_TRIES: Final = 5
"""How often a copy is made again that was evicted before it could be used."""

Kept = TypeVar("Kept")


class CachedArtifacts:
    """Implements :class:`swarm.store.ports.ArtifactStore`."""

    def __init__(
        self,
        root: Path,
        shared: SharedFiles,
        limit_bytes: int,
        directories: DirectoryLimits | None = None,
    ) -> None:
        """
        Args:
            root: the folder of the copies.
            shared: what the machines share.
            limit_bytes: how large all copies may be together.
            directories: see :class:`swarm.store.ports.ArtifactStore`.
        """
        self.directories = directories
        self.local = LocalArtifacts(root)
        self._root = root
        self._shared = shared
        self._limit = limit_bytes
        self._held = Leases(root / "held")
        self._fetching = Leases(root / "fetching")
        self._fetches: dict[str, asyncio.Task[Path]] = {}
        self._added = self._limit
        self._counting = Lock()

    async def put_bytes(self, data: bytes) -> str:
        """Keep ``data``, for every machine.

        Raises:
            RefusedError: it is larger than the database is to hold, and there is no bucket.
            UnavailableError: it cannot be kept here, or not be published.
        """
        return await self._put(partial(self.local.keep_bytes, data))

    async def put_file(self, path: Path) -> str:
        """Copy the regular file at ``path`` in; raises InputError, and as :meth:`put_bytes`."""
        return await self._put(partial(self.local.keep_file, path))

    async def put_descriptor(self, descriptor: int) -> str:
        """Copy an open regular file in, from its start; raises as :meth:`put_file`."""
        return await self._put(partial(self.local.keep_descriptor, descriptor))

    def path(self, reference: str) -> Path:
        """Where the content lies; blocks until it has come, where it lay elsewhere.

        Raises:
            NotFoundError: no such artifact.
            DamagedError: what came is not what was put.
            UnavailableError: it cannot be fetched, or not be kept here.
        """
        try:
            path = self.local.path(reference)
            os.utime(path)
            return path
        except (NotFoundError, FileNotFoundError):
            return self._fetch(reference)

    async def fetch(self, reference: str) -> Path:
        """:meth:`path`, off the event loop; many at once that ask for one thing wait for one."""
        task = self._fetches.get(reference)
        if task is None:
            task = asyncio.create_task(self._shared.do(self.path, reference))
            self._fetches[reference] = task
            task.add_done_callback(lambda _: self._fetches.pop(reference, None))
        return await asyncio.shield(task)

    @contextmanager
    def held(self, references: Iterable[str]) -> Iterator[None]:
        """Keep the copies of these from being evicted, whether they are here yet or come."""
        with ExitStack() as holding:
            for digest in sorted({artifact_digest(one) for one in references} - {""}):
                holding.enter_context(self._held.shared(digest))
            yield

    async def aclose(self) -> None:
        """Wait for what is being fetched."""
        await asyncio.gather(*self._fetches.values(), return_exceptions=True)

    async def _put(self, keep: Callable[[], str]) -> str:
        return await self._shared.do(self._publish, keep)

    def _publish(self, keep: Callable[[], str]) -> str:
        for _ in range(_TRIES):
            reference = self._with_room(keep)
            try:
                with self.local.path(reference).open("rb") as source:
                    self._note(os.fstat(source.fileno()).st_size)
                    self._shared.publish("artifact", artifact_digest(reference), source)
                    return reference
            except (NotFoundError, FileNotFoundError):
                continue  # evicted at once: the cache is much too small, or the disk full
        raise self._too_small()

    def _fetch(self, reference: str) -> Path:
        digest = artifact_digest(reference)
        if not digest:
            return self.local.path(reference)  # says that there can be no such artifact
        receive = partial(self.local.receive, digest)
        for _ in range(_TRIES):
            with self._fetching.alone(digest):
                path = self.local.place(digest)
                if not path.is_file():  # otherwise another process was faster
                    self._with_room(partial(self._shared.fetch, "artifact", digest, receive))
            with suppress(FileNotFoundError):
                os.utime(path)
                self._note(path.stat().st_size)
                return path
        raise self._too_small()

    def _with_room(self, keep: Callable[[], Kept]) -> Kept:
        """Keep something; if the disk is full, evict what can be and try once more."""
        try:
            return keep()
        except UnavailableError as error:
            cause = error.__context__
            if not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not self.evict(0):
                raise
        return keep()

    def _note(self, size: int) -> None:
        """Count what was added here, and evict once it may be too much."""
        with self._counting:
            self._added += size
            if self._added < self._limit * _LOOKED_AT:
                return
            self._added = 0
        self.evict(self._limit)

    def evict(self, limit_bytes: int) -> int:
        """Delete the copies that were used least recently, of those that nobody holds, if all
        together have more bytes; return how many went. Nothing if another process is at it."""
        with self._fetching.alone("evicting", wait=False) as is_alone:
            if not is_alone:
                return 0
            copies = sorted(self._copies())
            left = sum(size for _, size, _ in copies)
            if left <= limit_bytes:
                return 0
            count = 0
            for _, size, digest in copies:
                if left <= limit_bytes * _EVICTED_TO:
                    break
                with self._held.alone(digest, wait=False) as is_free:
                    if is_free:
                        self.local.remove(digest)
                        count, left = count + 1, left - size
            return count

    def _copies(self) -> Iterator[tuple[float, int, str]]:
        """When each copy was last used, its bytes and its digest."""
        for shard in self.local.shards():
            with os.scandir(shard) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        yield status.st_mtime, status.st_size, shard.name + entry.name

    def _too_small(self) -> UnavailableError:
        return UnavailableError(
            "the copies of artifacts go as fast as they come",
            where=str(self._root),
            remedy="raise the setting artifact_cache_mb, or make room on the disk",
        )
