"""What the engine asks of the processes that drive runs beside this one.

A process that takes part is a *host*. Whoever wants to know nothing of where the others are, and
how they are reached, uses :class:`Peers`; there is one implementation for each way of finding them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from swarm.kernel.json import JsonObject

LONG_LIVED = frozenset({"worker", "serve"})
"""Roles of hosts that take runs over from processes that end sooner."""


@dataclass(frozen=True, slots=True)
class HostInfo:
    """A host that is alive."""

    id: str
    role: str
    pid: int
    """Its process id, for people to read; nothing is decided by it."""
    machine: str = ""
    version: str = ""
    labels: tuple[str, ...] = ()
    """What it has that a run may ask for."""
    format_version: int = 1
    """It can drive runs of this format and of older ones."""

    @property
    def is_long_lived(self) -> bool:
        return self.role in LONG_LIVED


@dataclass(frozen=True, slots=True)
class Membership:
    """This process as a host."""

    id: str
    lock_descriptors: tuple[int, ...] = ()
    """Whoever inherits them keeps this host from being taken for dead until it is gone too."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A run that nobody drives, and what decides who may."""

    run_id: str
    priority: int = 0
    runs_on: tuple[str, ...] = ()
    """Labels that the host must have."""
    format_version: int = 1
    """What the host must understand: this format or a newer one."""


class RunRow(Protocol):
    """What of a run's record decides who may drive it."""

    @property
    def id(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def runs_on(self) -> tuple[str, ...]: ...
    @property
    def format_version(self) -> int: ...
    @property
    def parent_run_id(self) -> str | None: ...
    @property
    def parent_item_index(self) -> int | None: ...


def is_spread(run: RunRow) -> bool:
    """Whether any worker may drive a run, where there is a queue: nobody called it, or it is one of
    many items, or asks for labels. Other called runs are driven where their caller is."""
    is_item = run.parent_item_index is not None and run.parent_item_index >= 0
    return run.parent_run_id is None or is_item or bool(run.runs_on)


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """Runs that wait for a worker."""

    name: str
    waiting: int
    oldest_seconds: float
    """How long the oldest of them has waited."""
    is_served: bool = True
    """Whether a living worker takes runs from it."""


@dataclass(frozen=True, slots=True)
class Duties:
    """What a host does when a peer asks, or is gone."""

    drive: Callable[[str], Awaitable[bool]]
    """Take a run up; whether it did."""
    take: Callable[[Sequence[str]], Awaitable[Sequence[str]]]
    """Take runs up together that were found in the queue; which it did. The others may have to wait
    for further runs, be driven already, or have a dead owner: that is for ``drive``."""
    cancel: Callable[[str], None]
    follow: Callable[[str], AsyncIterator[JsonObject]]
    wake: Callable[[str], Awaitable[bool]]
    """Something has come for a run: whether it is driven here, now or from now on."""
    freed: Callable[[str, str], Awaitable[None]]
    """A run with this concurrency key (of this project) has ended."""
    room: Callable[[], int]
    """How many more runs it may take up now."""
    on_death: Callable[[], Awaitable[None]]
    """Another host has died or left, or may have: runs that nobody drives are to go on."""
    on_loss: Callable[[], Awaitable[None]]
    """This process is taken for dead: whatever it drives must stop before this returns."""


class Peers(Protocol):
    """This process among those that drive runs from the same database."""

    @property
    def is_host(self) -> bool:
        """Whether this process has joined the others."""
        ...

    @property
    def is_long_lived(self) -> bool:
        """Whether it takes runs over from processes that end sooner."""
        ...

    @property
    def spreads(self) -> bool:
        """Whether runs that nobody drives lie in a queue that workers take from: a run that was
        recorded lies there already, unless its caller's process is to drive it."""
        ...

    async def join(self, duties: Duties, on_join: Callable[[Membership], None]) -> Membership:
        """Become a host, once; ``on_join`` is called before this returns the first time.

        Raises:
            UnavailableError: this process cannot be one.
        """
        ...

    async def leave(self) -> None:
        """Be a host no more; what it drove may be taken up by others at once."""
        ...

    async def living(self) -> list[HostInfo]:
        """The hosts that are alive, oldest first."""
        ...

    async def is_first(self) -> bool:
        """Whether no other live host is long-lived, or comes before this one: so that one of them,
        not each, does what has to be done."""
        ...

    async def is_alive(self, host_id: str) -> bool: ...

    async def hand_over(self, run: Placement) -> bool:
        """Whether a long-lived host takes the new run; False if this process is to drive it."""
        ...

    async def place(self, runs: Sequence[Placement]) -> Sequence[Placement]:
        """Have runs that nobody drives taken up by whichever hosts may; gives those of them that
        this process is to take up itself."""
        ...

    async def serves(self, run: Placement) -> bool:
        """Whether a living host could take the run from the queue."""
        ...

    async def queues(self) -> list[QueueInfo]:
        """The queues in which runs wait."""
        ...

    def has_room(self) -> None:
        """This host may be able to take up another run."""
        ...

    async def until_taken(self, run_id: str) -> None:
        """Wait a little: until another host may have taken the run up."""
        ...

    async def cancel(self, owner: str, run_id: str) -> None:
        """Tell the owner to cancel; if it dies meanwhile, that is for the caller to find."""
        ...

    def follow(self, owner: str, run_id: str) -> AsyncIterator[JsonObject]:
        """The events of a run that ``owner`` drives; ends early if the owner dies."""
        ...

    async def wake(self, owner: str, run_id: str) -> None:
        """Tell the owner that something has come for a run; if it dies meanwhile, who takes the run
        over finds it."""
        ...

    async def offer(self, run_id: str) -> bool:
        """Offer a waiting run to the other hosts; False if none took it."""
        ...

    async def tell_freed(self, concurrency_key: str, project_id: str) -> None:
        """Tell all hosts that a run with this key has ended."""
        ...
