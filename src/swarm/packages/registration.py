"""Agents as a home knows them: read, checked, pinned, their dependencies installed, recorded."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.definitions.agent import PermissionsDefinition
from swarm.definitions.loading import agent_from_json, definition_to_json
from swarm.definitions.values import fields_schema
from swarm.kernel.clock import now_text
from swarm.kernel.errors import RefusedError, SwarmError, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.ids import new_id
from swarm.kernel.settings import Settings
from swarm.packages.entry import entry_tuple
from swarm.packages.environments import EnvironmentInstaller
from swarm.packages.grants import Permissions, collect_grants
from swarm.packages.host import check_host
from swarm.packages.package import MANIFEST, Package
from swarm.packages.pinning import PinnedPackages
from swarm.packages.places import children_with
from swarm.packages.reading import read_package
from swarm.packages.references import AGENTS, choose_version, split_reference
from swarm.packages.sharing import SharedPackages
from swarm.sandbox.egress.policy import HostPattern
from swarm.sandbox.ports import Program
from swarm.store.ports import AgentRegistry
from swarm.store.records import DEFAULT_PROJECT, AgentRecord, GrantRecord
from swarm.store.shared.files import SharedFiles

KEPT_SECONDS = 600.0
"""How long a program that was used is not touched again; collecting spares it for much longer."""

MOST_KEPT = 1_000
"""Programs of which a process remembers when it touched them."""


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """What a registration did."""

    record: AgentRecord
    created: bool
    """False when this very package was registered before."""
    replaced_digest: str | None
    """The digest that stood under the same name and version with other bytes, if one did."""
    grants: Permissions
    """All that the package is granted now."""
    requested: Permissions
    """All that its manifest asks for."""


@dataclass(frozen=True, slots=True)
class FailedRegistration:
    """A folder that ``register_all`` could not register, and why."""

    path: Path
    error: SwarmError


class AgentCatalog:
    """Registers agents of one home and finds them again."""

    def __init__(
        self,
        registry: AgentRegistry,
        home: Home,
        settings: Settings,
        *,
        shared: SharedFiles | None = None,
        project_id: str = DEFAULT_PROJECT,
    ) -> None:
        """``shared`` is where the machines of one database find each other's packages."""
        self._registry = registry
        self._settings = settings
        self._shared = SharedPackages(shared, settings) if shared is not None else None
        self._packages = PinnedPackages(home, settings)
        self._environments = EnvironmentInstaller(home, settings, self._shared)
        self._project_id = project_id
        self._scratch = home.cache
        self._kept: dict[str, float] = {}

    async def register(
        self,
        path: Path,
        *,
        grant: bool | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> RegisteredAgent:
        """Register the package at ``path``, a folder or an ``.apkg`` archive.

        Args:
            path: the package.
            grant: whether to grant what the manifest asks for. None grants it to a folder and not
                to an archive, which may come from somebody else.
            on_progress: told what is being done, one line at a time.

        Raises:
            NotFoundError, DefinitionError, ArchiveError: the package; see ``read_package``.
            RefusedError: it asks for more than was granted before, and ``grant`` says no.
            UnavailableError: a program or interpreter that it needs is not on this host.
            DependencyError: its dependencies cannot be installed.
        """
        package = await asyncio.to_thread(read_package, path, self._settings)
        definition = package.definition
        await asyncio.to_thread(check_host, definition, self._settings)
        earlier = await self._registry.list_agents(definition.name, self._project_id)
        requested = as_permissions(definition.permissions)
        granted = await self._granted_before(package, earlier)
        if grant is False or (grant is None and package.is_archive):
            _refuse_more(package, requested, granted)
        environment = await self._environments.install(package, on_progress)
        pinned = await self._packages.pin(package)
        if self._shared is not None:
            await self._shared.publish(package, self._scratch)
        record = self._record(package, pinned, environment[0] if environment else None)
        stored = await self._registry.add_agent(record, self._grants(package.digest, requested))
        replaced = next((one for one in earlier if one.version == definition.version), None)
        return RegisteredAgent(
            record=stored,
            created=stored.id == record.id,
            replaced_digest=replaced.digest
            if replaced and replaced.digest != stored.digest
            else None,
            grants=await self.granted(stored),
            requested=requested,
        )

    async def register_all(
        self,
        folder: Path,
        *,
        grant: bool | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> list[RegisteredAgent | FailedRegistration]:
        """Register every folder in ``folder`` that has a manifest; one failure stops no other.

        Raises:
            NotFoundError: there is no such folder; UnavailableError: it cannot be read.
        """
        results: list[RegisteredAgent | FailedRegistration] = []
        for path in await asyncio.to_thread(children_with, folder, MANIFEST):
            try:
                results.append(await self.register(path, grant=grant, on_progress=on_progress))
            except SwarmError as error:
                results.append(FailedRegistration(path, error))
        return results

    async def unregister(self, reference: str) -> int:
        """Take ``name`` (every version) or ``name@version`` out; return how many versions.

        Runs that are pinned to it go on: its package stays in the home.

        Raises:
            NotFoundError: no such agent or version.
        """
        record = await self.resolve(reference)
        _, version = split_reference(reference)
        return await self._registry.remove_agent(record.name, version, self._project_id)

    async def resolve(self, reference: str) -> AgentRecord:
        """The agent that ``name`` (its highest version) or ``name@version`` means.

        Versions are ordered by Semantic Versioning 2.0.0, section 11: ``2.0.0-rc.1`` lies above
        ``1.9.0`` and below ``2.0.0``.

        Raises:
            NotFoundError: no such agent or version; offers what there is.
        """
        name, _ = split_reference(reference)
        versions = await self._registry.list_agents(name, self._project_id)
        return choose_version(reference, versions or await self.list(), AGENTS)

    async def list(self) -> list[AgentRecord]:
        """The registered agents by name, then by ascending version."""
        return await self._registry.list_agents(project_id=self._project_id)

    async def granted(self, record: AgentRecord) -> Permissions:
        """What the package of ``record`` is granted."""
        return collect_grants(await self._registry.list_grants(record.digest, record.project_id))

    async def publish(self, record: AgentRecord) -> None:
        """Have every machine find the package of an agent that was registered before machines
        shared their database.

        Raises:
            UnavailableError: the package is gone from the home, or cannot be published.
        """
        if not self._packages.has(record.digest):
            where = self._packages.path(record.digest)
            raise _gone(record, "its package is gone from the home", where)
        if self._shared is not None:
            package = await self._packages.read(record.digest)
            await self._shared.publish(package, self._scratch)

    async def prepare(self, record: AgentRecord) -> Program:
        """What a sandbox here needs to run the agent.

        Where machines share a database, the package is fetched and its environment built, unless
        they are here.

        Raises:
            UnavailableError: the package or its environment is gone, cannot be fetched, or this
                host lacks what the agent needs.
            NotFoundError: no machine has published the package.
            DamagedError: what came is not that package.
            DependencyError: its dependencies cannot be installed here.
        """
        environment = record.environment_digest
        if self._shared is not None and not self._is_here(record):
            environment = await self._bring(record, self._shared)
        package = self._packages.path(record.digest)
        if not self._packages.has(record.digest):
            raise _gone(record, "its package is gone from the home", package)
        if environment is not None and not self._environments.is_complete(environment):
            folder = self._environments.path(environment)
            raise _gone(record, "its dependencies are gone from the home", folder)
        definition = agent_from_json(record.definition)
        return Program(
            runtime=definition.runtime.type,
            entry=entry_tuple(definition),
            package=package,
            digest=record.digest,
            environment=self._environments.path(environment) if environment is not None else None,
        )

    def keep(self, program: Program) -> bool:
        """Note that a program is being used, so that it stays here; whether it is here.

        Only what machines fetch needs this: what was registered here stays while it is recorded.
        """
        moment = time.monotonic()
        if self._shared is None or moment < self._kept.get(program.digest, 0.0):
            return True
        try:
            os.utime(program.package)
            if program.environment is not None:
                os.utime(program.environment)
        except FileNotFoundError:
            return False
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[program.digest] = moment + KEPT_SECONDS
        return True

    def _is_here(self, record: AgentRecord) -> bool:
        environment = record.environment_digest
        return self._packages.has(record.digest) and (
            environment is None or self._environments.is_complete(environment)
        )

    async def _bring(self, record: AgentRecord, shared: SharedPackages) -> str | None:
        """Have the package here, and its environment; return the environment's digest."""
        package, _ = await self._packages.bring(record.digest, shared)
        await asyncio.to_thread(check_host, package.definition, self._settings)
        installed = await self._environments.install(package)
        return installed[0] if installed is not None else None

    async def _granted_before(
        self, package: Package, earlier: Sequence[AgentRecord]
    ) -> Permissions:
        """What this very package, or else the highest version registered, was granted."""
        same = await self._registry.list_grants(package.digest, self._project_id)
        if same or not earlier:
            return collect_grants(same)
        return await self.granted(earlier[-1])

    def _record(
        self, package: Package, pinned: Path, environment_digest: str | None
    ) -> AgentRecord:
        definition = package.definition
        time = now_text()
        return AgentRecord(
            id=new_id("agt"),
            name=definition.name,
            version=definition.version,
            digest=package.digest,
            path=str(pinned),
            source=str(package.root),
            definition=definition_to_json(definition),
            description=definition.description,
            capabilities=definition.capabilities,
            inputs_schema=fields_schema(definition.inputs, additional=definition.additional_inputs),
            outputs_schema=fields_schema(
                definition.outputs, additional=definition.additional_outputs
            ),
            runtime=definition.runtime.type,
            memory_mb=definition.runtime.memory_mb,
            timeout_seconds=definition.runtime.timeout_seconds,
            triggers=definition.triggers,
            author=definition.author,
            tags=definition.tags,
            environment_digest=environment_digest,
            created_at=time,
            updated_at=time,
            project_id=self._project_id,
        )

    def _grants(self, digest: str, permissions: Permissions) -> Sequence[GrantRecord]:
        time = now_text()
        return [
            GrantRecord(new_id("grt"), digest, permission, value, time, self._project_id)
            for permission, values in permissions.items()
            for value in values
        ]


def as_permissions(requested: PermissionsDefinition) -> Permissions:
    """What a manifest asks for, each value once and in order, without empty permissions."""
    found = {name: getattr(requested, name) for name in PermissionsDefinition.model_fields}
    return {name: tuple(sorted(set(values))) for name, values in found.items() if values}


def beyond(
    requested: Mapping[str, Sequence[str]], granted: Mapping[str, Sequence[str]]
) -> Permissions:
    """What is asked for and not granted.

    A host that a granted pattern includes is granted, but for named hosts under ``*``: a name may
    lead to a private network that the operator allows, ``*`` never does.
    """
    more = {
        name: tuple(
            value
            for value in values
            if not any(_grants(name, one, value) for one in granted.get(name, ()))
        )
        for name, values in requested.items()
    }
    return {name: values for name, values in more.items() if values}


def _grants(permission: str, granted: str, asked: str) -> bool:
    if granted == asked or permission != "network":
        return granted == asked
    pattern, wanted = HostPattern.parse(granted), HostPattern.parse(asked)
    return pattern.includes(wanted) and pattern.is_any == wanted.is_any


def _refuse_more(package: Package, requested: Permissions, granted: Permissions) -> None:
    more = beyond(requested, granted)
    if not more:
        return
    asked = "; ".join(f"{name}: {', '.join(values)}" for name, values in more.items())
    definition = package.definition
    raise RefusedError(
        f"{definition.name}@{definition.version} asks for permissions that it was not granted:"
        f" {asked}",
        where=str(package.root),
        remedy="look at what it does, then register it with `--grant` to grant them",
    )


def _gone(record: AgentRecord, message: str, where: Path) -> UnavailableError:
    return UnavailableError(
        f"{record.name}@{record.version}: {message}",
        where=str(where),
        remedy=f"register it again: `swarm agent register {record.source}`",
    )
