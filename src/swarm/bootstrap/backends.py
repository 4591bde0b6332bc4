"""The sandboxes of one process, by isolation level, made when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from swarm.dispatch.ports import Membership
from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.microvm.backend import MicrovmBackend
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import Isolation, SandboxBackend
from swarm.sandbox.unisolated import UnisolatedBackend


class Backends:
    """Gives the backend of a level. A command that runs no agent never starts one."""

    def __init__(
        self, settings: Settings, made: Mapping[Isolation, SandboxBackend] | None = None
    ) -> None:
        """``made``: backends to use for their levels, such as a simulation's; closed here."""
        self._settings = settings
        self._made = dict(made or {})
        self._lock_descriptors: tuple[int, ...] = ()

    def hold(self, membership: Membership) -> None:
        """Let the sandboxes made from now on keep the host's lock: only when they are gone too
        may another host take its runs over."""
        self._lock_descriptors = membership.lock_descriptors

    def __call__(self, level: Isolation) -> SandboxBackend:
        if level not in self._made:
            self._made[level] = self._make(level)
        return self._made[level]

    def _make(self, level: Isolation) -> SandboxBackend:
        if level is Isolation.SANDBOX:
            made = NamespaceBackend(self._settings, lock_descriptors=self._lock_descriptors)
            return PooledBackend(made, self._settings)
        if level is Isolation.NONE:
            return UnisolatedBackend(self._settings, lock_descriptors=self._lock_descriptors)
        machines = MicrovmBackend(self._settings, lock_descriptors=self._lock_descriptors)
        return PooledBackend(machines, machine_pool(self._settings))

    async def close(self) -> None:
        """Destroy every sandbox and stop what makes them."""
        for backend in self._made.values():
            await backend.close()
        self._made.clear()


def machine_pool(settings: Settings) -> Settings:
    """The limits of the pool of virtual machines, which are larger and slower to make."""
    return replace(
        settings,
        pool_ready=settings.microvm_warm_machines,
        pool_memory_mb=settings.microvm_warm_mb,
        pool_idle_seconds=settings.microvm_warm_seconds,
    )
