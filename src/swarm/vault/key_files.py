"""Master keys as files: ``master-0001.key``, ``master-0002.key``, ... below ``registry/secrets``.

Each file holds one key, and is never written again: it appears whole under its name, by a link that
fails if the name is taken. Of two processes that make a key at once, one succeeds and the other
finds it. The highest number is the newest. Folder and files are the owner's alone; anything more
open is refused, as ssh refuses such keys.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import stat
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path

from swarm.kernel.errors import MasterKeyError, RefusedError
from swarm.vault.envelope import MasterKey
from swarm.vault.key_ring import KeyRing, key_from_text, key_to_text

_NAME = re.compile(r"master-(\d{4,})\.key")
MAX_FILE_BYTES = 1_024
TURNSTILE = ".turnstile"
"""An empty file beside the keys, to be locked."""
LOCK_POLL_SECONDS = 0.01
"""How often a lock that another holds is tried again."""
LOCK_WAIT_SECONDS = 60.0
"""How long to try. It is held while secrets are sealed or a key is made: for milliseconds, unless
its holder waits for somebody to unlock a keyring."""


class KeyFiles:
    """The key files of one folder."""

    can_add = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def place(self) -> str:
        return str(self._folder)

    def load(self) -> KeyRing:
        return KeyRing(tuple(key for _, key in reversed(self._numbered())))

    def add(self) -> None:
        numbers = [number for number, _ in self._numbered()]
        path = self._folder / f"master-{max(numbers, default=0) + 1:04}.key"
        key = MasterKey.generate()
        unfinished = self._folder / f".{path.name}.part"
        try:
            # Only the holder of the lock is here: what lies there is of one that was killed.
            unfinished.unlink(missing_ok=True)
            _write_private(unfinished, f"{key.id} {key_to_text(key)}\n")
            try:
                os.link(unfinished, path)
            except FileExistsError:
                return  # another process was faster: its key is the newest
            finally:
                unfinished.unlink()
            _sync_folder(self._folder)
        except OSError as error:
            raise MasterKeyError(
                f"a master key cannot be written: {error.strerror}",
                where=str(path),
                remedy="check that the folder is writable and its disk has space; nothing was lost",
            ) from None

    def retire(self, key_ids: frozenset[str]) -> int:
        retired = 0
        for number, key in self._numbered()[:-1]:
            if key.id in key_ids:
                (self._folder / f"master-{number:04}.key").unlink()
                retired += 1
        _sync_folder(self._folder)
        return retired

    def locked(self, *, exclusive: bool) -> AbstractAsyncContextManager[None]:
        return locked_folder(self._folder, exclusive=exclusive)

    def _numbered(self) -> list[tuple[int, MasterKey]]:
        """The keys by ascending number."""
        try:
            if self._folder.exists():
                _check_private(self._folder, self._folder.stat(), 0o700)
            names = [_NAME.fullmatch(name) for name in os.listdir(self._folder)]  # noqa: PTH208
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self._folder, error) from None
        found = sorted((int(match[1]), match[0]) for match in names if match)
        return [(number, _read_key(self._folder / name)) for number, name in found]


@asynccontextmanager
async def locked_folder(folder: Path, *, exclusive: bool) -> AsyncIterator[None]:
    """Hold the lock of ``folder`` itself, shared or alone; it frees itself when the process ends.

    All pass a turnstile first. Who wants the lock alone stays in it, so that nobody gets past who
    shares the lock: else those who share it, one after the other, would keep it taken for ever.

    It is polled. Waiting for it in threads hung as soon as more waited than the event loop's pool
    has threads (6 on 2 cores): whoever held it needs a thread of the same pool to go on.

    Raises:
        MasterKeyError: the folder cannot be opened, or another keeps its lock for too long.
    """
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    with ExitStack() as stack:
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, lock)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            turnstile = os.open(TURNSTILE, flags, 0o600, dir_fd=lock)
            stack.callback(os.close, turnstile)
        except OSError as error:
            raise _unreadable(folder, error) from None
        for descriptor in (turnstile, lock):
            while not _try_lock(descriptor, kind):
                if time.monotonic() > deadline:
                    raise _busy(folder)
                await asyncio.sleep(LOCK_POLL_SECONDS)
        if not exclusive:
            fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_key(path: Path) -> MasterKey:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _damaged(path, "it is not a regular file")
            _check_private(path, status, 0o600)
            data = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None
    key_id, _, text = data.decode("ascii", "replace").strip().partition(" ")
    try:
        key = key_from_text(text)
    except ValueError:
        raise _damaged(path, "it holds no key") from None
    if key.id != key_id:
        raise _damaged(path, "its key is not the one that it names")
    return key


def _check_private(path: Path, status: os.stat_result, mode: int) -> None:
    if status.st_mode & 0o077:
        raise RefusedError(
            f"others than its owner may use it (mode {stat.S_IMODE(status.st_mode):04o})",
            where=str(path),
            remedy=f"`chmod {mode:o} {path}`; if others may have read a key in it, change what the "
            "secrets protect, set them anew and rotate",
        )
    if status.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        raise RefusedError(
            "it belongs to another user", where=str(path), remedy="run Swarm as its owner"
        )


def _write_private(path: Path, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> MasterKeyError:
    return MasterKeyError(
        f"the master key cannot be read: {error.strerror}",
        where=str(path),
        remedy="make it readable for this user; no secret is lost, and none was changed",
    )


def _busy(folder: Path) -> MasterKeyError:
    return MasterKeyError(
        f"another process has kept the master keys locked for {LOCK_WAIT_SECONDS:.0f} seconds",
        where=str(folder),
        remedy="it may wait for a keyring to be unlocked; try again, nothing was changed",
    )


def _damaged(path: Path, why: str) -> MasterKeyError:
    return MasterKeyError(
        f"the master key is damaged: {why}",
        where=str(path),
        remedy="put the file back from a backup; no secret is lost while its key is somewhere",
    )
