"""Isolation level ``sandbox``: each invocation in fresh namespaces, forked from a zygote."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.sandbox.interpreters import find_node, python_program
from swarm.sandbox.linux import cgroups, plan
from swarm.sandbox.linux.blank import Blank, Blanks
from swarm.sandbox.linux.priority import can_raise_priority
from swarm.sandbox.linux.remedies import unavailable
from swarm.sandbox.linux.sandbox import NamespaceSandbox, Parts
from swarm.sandbox.linux.uid_range import UidRange, find_range
from swarm.sandbox.linux.zygote_client import Zygote
from swarm.sandbox.ports import SandboxRequest
from swarm.sandbox.session import GuestSession

REQUIRED_LAYERS: Final = (
    "user-namespace",
    "pid-namespace",
    "mount-namespace",
    "network-namespace",
    "ipc-namespace",
    "uts-namespace",
    "no-new-privileges",
    "no-capabilities",
    "seccomp",
)
_PREPARE_SECONDS: Final = 30.0
_AHEAD_NICENESS: Final = 5
"""About a third of the share of a process of ordinary priority: a call may come to wait for it."""


class NamespaceBackend:
    """Makes sandboxes out of the Linux kernel's namespaces.

    Args:
        settings: limits, private networks, whether a cgroup is required.
        lock_descriptors: open files whose locks must not come free before the last sandbox is gone.
            They are kept by the zygote and by every sandbox's init, never by a handler.
    """

    def __init__(self, settings: Settings, *, lock_descriptors: Sequence[int] = ()) -> None:
        self._settings = settings
        self._locks = tuple(lock_descriptors)
        self._starting = asyncio.Lock()
        self._zygote: Zygote | None = None
        self._facts: plan.HostFacts | None = None
        self._tree: cgroups.CgroupTree | None = None
        self._sandboxes: set[NamespaceSandbox] = set()
        self.blanks = Blanks()

    async def prepare(self, request: SandboxRequest) -> NamespaceSandbox:
        """Build a sandbox; see :class:`swarm.sandbox.ports.SandboxBackend`."""
        return await self._prepare(request, niceness=0)

    async def prepare_ahead(self, request: SandboxRequest) -> NamespaceSandbox:
        """Build one at a lower priority; see :class:`swarm.sandbox.ports.AheadBackend`."""
        return await self._prepare(request, niceness=_AHEAD_NICENESS)

    async def _prepare(self, request: SandboxRequest, niceness: int) -> NamespaceSandbox:
        zygote, facts = await self._ready(request)
        owners = _owners(request, facts)
        blank = None if niceness else self.blanks.take(zygote, owners)
        if blank is None:
            blank = await Blank.spawn(zygote, owners)
        try:
            session = GuestSession(request.limits)
            await session.attach(blank.ends)
            tree, sandbox_id = self._tree, blank.process.id
            parts = Parts(
                request=request,
                settings=self._settings,
                zygote=zygote,
                session=session,
                channel=blank.channel,
                process=blank.process,
                group=None if tree is None else tree.create(sandbox_id, request.limits),
                layers=self._layers(zygote),
                # Undone by uid, which reaches all its threads, so it must have a uid of its own.
                niceness=niceness if facts.uids and facts.raises_priority else 0,
            )
        except BaseException:
            blank.close()
            raise
        sandbox = NamespaceSandbox(sandbox_id, parts, self._sandboxes.discard)
        self._sandboxes.add(sandbox)
        try:
            files = [] if parts.group is None else [str(path) for path in parts.group.process_files]
            async with asyncio.timeout(_PREPARE_SECONDS):
                told = plan.sandbox_plan(request, facts, files, parts.niceness)
                await blank.channel.send_plan(told)
                await sandbox.become_ready()
        except TimeoutError:
            await sandbox.destroy()
            raise unavailable("zygote", 0, "the sandbox was not ready in time") from None
        except BaseException:
            await sandbox.destroy()
            raise
        return sandbox

    async def close(self) -> None:
        """Destroy every sandbox and stop the zygote; safe to call twice."""
        for sandbox in list(self._sandboxes):
            await sandbox.destroy()
        await self.blanks.close()
        if self._zygote is not None:
            await self._zygote.close()
            self._zygote = None
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    @property
    def zygote_pid(self) -> int | None:
        """The zygote's process id while one runs."""
        zygote = self._zygote
        return zygote.pid if zygote is not None and zygote.is_alive else None

    async def _ready(self, request: SandboxRequest) -> tuple[Zygote, plan.HostFacts]:
        """A living zygote that can run this request; starts one where there is none."""
        needs_node = request.program.runtime == "node"
        async with self._starting:
            if self._facts is None:
                self._facts = await asyncio.to_thread(self._find_facts)
            if needs_node and self._facts.node is None:
                await asyncio.to_thread(find_node, self._settings)  # Raises, with the remedy.
            if self._zygote is None or not self._zygote.is_alive:
                self._zygote = await self._start(self._facts)
            return self._zygote, self._facts

    def _find_facts(self) -> plan.HostFacts:
        try:
            node = find_node(self._settings)
        except SandboxUnavailable:
            node = None  # Said when an agent needs it.
        self._tree = cgroups.find_tree()
        if self._tree is None and self._settings.require_cgroup:
            raise SandboxUnavailable(
                "no cgroup with the memory and pids controllers may be made here",
                where="cgroup",
                remedy="delegate one (`systemd-run --user --scope -p Delegate=yes ...`), run as "
                "root, or unset SWARM_REQUIRE_CGROUP",
            )
        return plan.HostFacts(
            python=python_program(),
            node=node,
            uids=_uid_range(),
            masked=plan.masked_files(),
            has_cgroup=self._tree is not None,
            counts_processes=_kernel_version() >= (5, 14),
            raises_priority=can_raise_priority(),
        )

    async def _start(self, facts: plan.HostFacts) -> Zygote:
        staging = Home(self._settings.home.expanduser().absolute()).root / "run" / "sandbox"
        try:
            staging.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SandboxUnavailable(
                f"the folder for the sandbox's root cannot be made: {error.strerror}",
                where=str(staging),
                remedy="set SWARM_HOME to a folder that you may write",
            ) from None
        files = [] if self._tree is None else [str(path) for path in self._tree.zygote_files]
        configuration = plan.configuration(facts, staging, self._locks, files)
        user = plan.ordinary_user(facts)
        return await Zygote.start(facts.python, configuration, self._locks, user)

    def _layers(self, zygote: Zygote) -> tuple[str, ...]:
        layers = list(REQUIRED_LAYERS)
        if zygote.landlock:
            layers.append("landlock")
        layers.append("watchdog" if self._tree is None else self._tree.layer)
        return tuple(layers)


def _owners(request: SandboxRequest, facts: plan.HostFacts) -> list[str]:
    try:
        return plan.owners(request, facts)
    except OSError as error:
        is_input = error.filename in {mount.source for mount in request.inputs}
        raise unavailable(
            "inputs" if is_input else "package",
            error.errno or 0,
            f"{error.filename}: {error.strerror}",
        ) from None


def _uid_range() -> UidRange | None:
    if os.geteuid() != 0:
        return None
    maps = (Path(f"/proc/self/{name}").read_text() for name in ("uid_map", "gid_map"))
    return find_range(*maps)


def _kernel_version() -> tuple[int, int]:
    major, minor = Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)
