"""Waits for several descriptors. Less than ``selectors``: a guest pays for all that it runs."""

from __future__ import annotations

import select
from collections.abc import Callable

READ = select.POLLIN
WRITE = select.POLLOUT

Act = Callable[[int], None]
"""Gets the poll events."""


class Watch:
    """Descriptors, and what to do when they are ready."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._acts: dict[int, Act] = {}

    def add(self, descriptor: int, events: int, act: Act) -> None:
        """Watch ``descriptor``, or watch it for other events than before."""
        self._poll.register(descriptor, events)
        self._acts[descriptor] = act

    def drop(self, descriptor: int) -> None:
        """Stop watching ``descriptor``, if it is watched."""
        if self._acts.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def wait(self) -> None:
        """Wait until something is ready, and do what belongs to it."""
        for descriptor, events in self._poll.poll():
            act = self._acts.get(descriptor)
            if act is not None:  # Else what came before it has dropped it.
                act(events)
