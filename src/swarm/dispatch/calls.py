"""What hosts ask of each other, over whatever connects them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeAlias

from swarm.dispatch.connection import HostConnection
from swarm.dispatch.ports import Duties
from swarm.dispatch.server import Emit, Handler
from swarm.kernel.errors import InvalidError, UnavailableError
from swarm.kernel.json import JsonObject, JsonValue

ANSWER_SECONDS = 5.0
"""How long a host may take to answer what this process goes on without: it may be stopped
(SIGSTOP), which does not make it dead."""

Connect: TypeAlias = Callable[[str], Awaitable[HostConnection]]
"""Connects to a host by its id; raises UnavailableError if it is gone."""


class PeerCalls:
    """Calls other hosts."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    async def cancel(self, owner: str, run_id: str) -> None:
        with contextlib.suppress(UnavailableError):
            await self._request(owner, "cancel", {"run_id": run_id})

    async def wake(self, owner: str, run_id: str) -> None:
        with contextlib.suppress(UnavailableError):
            await self._request(owner, "wake", {"run_id": run_id})

    async def follow(self, owner: str, run_id: str) -> AsyncIterator[JsonObject]:
        try:
            connection = await self._connect(owner)
        except UnavailableError:
            return
        try:
            async for event in connection.stream("follow", {"run_id": run_id}):
                yield event
        except UnavailableError:
            return
        finally:
            connection.close()

    async def ask_first(self, hosts: Iterable[str], method: str, params: JsonObject) -> bool:
        """Ask the hosts in turn until one says yes."""
        for host_id in hosts:
            # One that has just ended is passed over: the next one, or this process, serves.
            with contextlib.suppress(UnavailableError):
                if await self.ask(host_id, method, params):
                    return True
        return False

    async def ask_all(self, hosts: Iterable[str], method: str, params: JsonObject) -> None:
        await asyncio.gather(
            *(self.ask(host_id, method, params) for host_id in hosts), return_exceptions=True
        )

    async def ask(self, host_id: str, method: str, params: JsonObject) -> JsonValue:
        """Call a host; one that does not answer in time is taken for one that is not there.

        Raises:
            UnavailableError: it is gone, or does not answer.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._request(host_id, method, params)
        except TimeoutError:
            raise UnavailableError(
                f"host {host_id} did not answer within {ANSWER_SECONDS:g} s"
            ) from None

    async def _request(self, host_id: str, method: str, params: JsonObject) -> JsonValue:
        connection = await self._connect(host_id)
        try:
            return await connection.request(method, params)
        finally:
            connection.close()


def answering(duties: Duties) -> Handler:
    """Serves one request of a peer by the host's duties."""

    async def answer(method: str, params: JsonObject, emit: Emit) -> JsonValue:
        match method:
            case "drive":
                return await duties.drive(params["run_id"])
            case "cancel":
                duties.cancel(params["run_id"])
                return True
            case "follow":
                async for event in duties.follow(params["run_id"]):
                    emit(event)
                return True
            case "wake":
                return await duties.wake(params["run_id"])
            case "freed":
                await duties.freed(params["key"], params["project_id"])
                return True
            case _:
                raise InvalidError(f"a host does not know the request {method!r}")

    return answer
