"""Sandboxes that no package is bound to yet: namespaces, and a process that waits for its plan.

Made ahead for calls whose package has none ready. To be bound means to be told the plan, so that
what is the same for all has been done by then, and nothing of a package before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swarm.kernel.ids import new_id
from swarm.sandbox.linux.channel import Channel
from swarm.sandbox.linux.watchdog import memory_of
from swarm.sandbox.linux.zygote_client import SpawnedProcess, Zygote
from swarm.sandbox.session import HostEnds, open_ends


@dataclass(frozen=True, slots=True)
class Blank:
    """One of them. Whoever takes it gives it its plan, or closes it."""

    zygote: Zygote
    owners: frozenset[str]
    """``uid:gid`` of the files that it can be shown."""
    process: SpawnedProcess
    channel: Channel
    ends: HostEnds

    @classmethod
    async def spawn(cls, zygote: Zygote, owners: Sequence[str]) -> Blank:
        """Ask the zygote for one."""
        channel = Channel()
        host, guest = open_ends()
        try:
            descriptors = [channel.guest_descriptor, guest.wire, guest.stdout, guest.stderr]
            process = await zygote.spawn(new_id("sbx"), list(owners), descriptors)
        except BaseException:
            channel.close()
            host.close()
            raise
        finally:
            guest.close()
        channel.give_up_guest()
        return cls(zygote, frozenset(owners), process, channel, host)

    @property
    def is_alive(self) -> bool:
        return self.zygote.is_alive and not self.process.handler_ended.done()

    def close(self) -> None:
        """Give it up; it ends by itself when it meets the end of its channel."""
        self.channel.close()
        self.ends.close()


class Blanks:
    """See :class:`swarm.sandbox.ports.Blanks`. They are made for what was asked for last."""

    def __init__(self) -> None:
        self._ready: deque[Blank] = deque()
        self._closed: set[asyncio.Future[None]] = set()
        self._zygote: Zygote | None = None
        self._owners: tuple[str, ...] = ()

    @property
    def ready(self) -> int:
        return len(self._ready)

    def memory_bytes(self) -> int:
        return sum(memory_of(blank.process.handler) for blank in self._ready)

    def take(self, zygote: Zygote, owners: Sequence[str]) -> Blank | None:
        """One that lives and can be shown files of these owners."""
        self._zygote, self._owners = zygote, tuple(owners)
        while self._ready:
            blank = self._ready.popleft()
            if blank.is_alive and blank.zygote is zygote and blank.owners >= set(owners):
                return blank
            self._close(blank)
        return None

    async def make(self) -> None:
        if self._zygote is None or not self._zygote.is_alive:
            return
        blank = await Blank.spawn(self._zygote, self._owners)
        process = blank.process
        waited: list[asyncio.Future[Any]] = [process.started, process.ended]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        self._ready.append(blank)

    def drop(self) -> None:
        if self._ready:
            self._close(self._ready.popleft())

    async def close(self) -> None:
        """Drop all, and wait until nothing of them is left."""
        while self._ready:
            self.drop()
        while self._closed:
            await asyncio.wait(self._closed)

    def _close(self, blank: Blank) -> None:
        blank.close()
        ended = asyncio.ensure_future(_until_ended(blank))
        self._closed.add(ended)
        ended.add_done_callback(self._closed.discard)


async def _until_ended(blank: Blank) -> None:
    await asyncio.wait([blank.process.ended])
