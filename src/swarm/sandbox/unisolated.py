"""Isolation level ``none``: no wall at all, for code that the operator trusts.

A Python package of one module that touches no files runs in the host's own process, which costs
next to nothing; everything else runs as a plain process with the same guest and the same wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from swarm.kernel.settings import Settings
from swarm.sandbox.in_process import InProcessHandlers, InProcessSandbox
from swarm.sandbox.plain_process import ProcessSandbox
from swarm.sandbox.ports import Sandbox, SandboxRequest
from swarm.sandbox.scratch import Scratch

LAYERS: Final = ("none",)


class UnisolatedBackend:
    """Runs handlers with the host's own rights. Memory and process limits are not enforced."""

    def __init__(self, settings: Settings, *, lock_descriptors: Sequence[int] = ()) -> None:
        """``lock_descriptors``: open files whose locks must not come free while a handler runs in
        this process; a process of its own never outlives its call."""
        self._settings = settings
        self._handlers = InProcessHandlers(lock_descriptors)
        self._scratch = Scratch()
        self._sandboxes: set[ProcessSandbox] = set()

    async def prepare(self, request: SandboxRequest) -> Sandbox:
        """See :class:`swarm.sandbox.ports.SandboxBackend`."""
        handler = self._handlers.find(request)
        if handler is not None:
            return InProcessSandbox(self._handlers, handler, request.limits)
        sandbox = ProcessSandbox(request, self._settings, self._scratch, self._sandboxes.discard)
        self._sandboxes.add(sandbox)
        try:
            await sandbox.start()
        except BaseException:
            await sandbox.destroy()
            raise
        return sandbox

    async def close(self) -> None:
        """End every process and forget every handler; safe to call twice."""
        await asyncio.gather(*(sandbox.destroy() for sandbox in list(self._sandboxes)))
        self._handlers.close()
        self._scratch.close()
