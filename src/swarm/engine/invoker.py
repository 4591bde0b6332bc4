"""Calls one agent outside any run, recorded like every other invocation."""

from __future__ import annotations

import asyncio
from pathlib import Path

from swarm.engine.api import AgentInvoker
from swarm.engine.files import FileAccess
from swarm.engine.invocations import (
    AgentServices,
    Call,
    GuestListener,
    Invoker,
    checked_inputs,
    effective_isolation,
    ended_record,
    failed_record,
    killed_record,
    started_record,
)
from swarm.engine.pins import Pins
from swarm.kernel.errors import InputError, SwarmError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject, dump_bytes
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import CallContext, InvocationResult, Isolation
from swarm.store.ports import ArtifactStore, Store
from swarm.store.records import InvocationRecord


class DirectInvoker(AgentInvoker):
    """``swarm agent run``: one agent, one invocation, no run."""

    def __init__(
        self,
        *,
        store: Store,
        artifacts: ArtifactStore,
        pins: Pins,
        invoker: Invoker,
        cache: Path,
        settings: Settings,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._pins = pins
        self._invoker = invoker
        self._cache = cache
        self._settings = settings

    async def invoke(
        self,
        agent: str,
        inputs: JsonObject,
        *,
        listener: GuestListener,
        mounts: dict[str, str] | None = None,
        isolation: Isolation = Isolation.SANDBOX,
    ) -> tuple[InvocationRecord, InvocationResult]:
        record = await self._pins.resolve_agent(agent)
        pinned = await self._pins.agent(record.id)
        size, limit = len(dump_bytes(inputs)), self._settings.max_input_bytes
        if size > limit:
            raise InputError(
                f"the input of {pinned.reference} has {size:,} bytes; the limit is {limit:,}",
                remedy="pass large data as a file, or raise SWARM_MAX_INPUT_BYTES",
            )
        checked = checked_inputs(pinned, inputs)
        invocation_id = new_id("inv")
        context = CallContext(
            invocation_id=invocation_id,
            idempotency_key=invocation_id,
            agent=record.name,
            agent_version=record.version,
        )
        level = effective_isolation(pinned, isolation, None)
        started = started_record(pinned, context, level)
        await self._store.record_invocation(started)
        call = Call(checked, context, FileAccess(self._artifacts, self._cache, mounts or {}), level)
        services = AgentServices(self._invoker.secrets(pinned), listener)
        try:
            completed = await self._invoker.invoke(pinned, call, services)
        except SwarmError as error:
            failed = services.masked_record(failed_record(started, error))
            await self._store.record_invocation(failed)
            raise
        except asyncio.CancelledError:
            await self._store.record_invocation(killed_record(started))
            raise
        ended = ended_record(started, completed)
        await self._store.record_invocation(ended)
        return ended, completed.result
