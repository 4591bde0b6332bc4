"""What the pool keeps ready, for whom and for how long, over a backend that only counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import SandboxUnavailable
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import MIB, Settings
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import (
    CallContext,
    GuestServices,
    InputMount,
    InvocationResult,
    Isolation,
    Limits,
    Outcome,
    Program,
    SandboxRequest,
)

REQUEST = SandboxRequest(
    Program("python", ("main.py",), Path("/package"), "sha256:1"),
    Limits(memory_bytes=64 * MIB, timeout_seconds=1),
)

REQUEST_WITH_INPUT = replace(REQUEST, inputs=(InputMount("file", Path("/etc/hosts")),))


def of_package(name: str) -> SandboxRequest:
    return replace(REQUEST, program=replace(REQUEST.program, digest=name))


@dataclass(eq=False)
class CountedSandbox:
    """A sandbox of nothing: it remembers what was done to it."""

    id: str
    request: SandboxRequest
    is_ahead: bool
    isolation: Isolation = Isolation.SANDBOX
    layers: tuple[str, ...] = ()
    is_alive: bool = True
    used: int = 8 * MIB
    calls: int = 0
    is_awake: bool = False
    is_destroyed: bool = False
    may_go: asyncio.Event = field(default_factory=asyncio.Event)

    def memory_bytes(self) -> int:
        return self.used

    def wake(self) -> None:
        self.is_awake = True

    async def call(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> InvocationResult:
        self.calls += 1
        return InvocationResult(Outcome.OK)

    async def outputs_descriptor(self) -> int:
        return -1

    async def destroy(self) -> None:
        await self.may_go.wait()
        self.is_destroyed = True


class CountedBlanks:
    """Blanks of nothing, which a test may refuse."""

    def __init__(self) -> None:
        self.ready = 0
        self.made = 0
        self.used = 1 * MIB
        self.refuses = False

    def memory_bytes(self) -> int:
        return self.ready * self.used

    async def make(self) -> None:
        await asyncio.sleep(0)
        self.made += 1
        if self.refuses:
            raise SandboxUnavailable("refused")
        self.ready += 1

    def drop(self) -> None:
        self.ready -= 1


class CountingBackend:
    """Builds at once, or when the test lets it."""

    def __init__(self) -> None:
        self.blanks = CountedBlanks()
        self.built: list[CountedSandbox] = []
        self.may_build = asyncio.Event()
        self.may_build.set()
        self.may_destroy = True
        self.used = 8 * MIB
        self.refuses = False
        self.is_closed = False

    async def prepare(self, request: SandboxRequest) -> CountedSandbox:
        return await self._build(request, is_ahead=False)

    async def prepare_ahead(self, request: SandboxRequest) -> CountedSandbox:
        return await self._build(request, is_ahead=True)

    async def close(self) -> None:
        self.is_closed = True

    async def _build(self, request: SandboxRequest, *, is_ahead: bool) -> CountedSandbox:
        await self.may_build.wait()
        if self.refuses and is_ahead:
            raise SandboxUnavailable("refused")
        made = CountedSandbox(f"sbx_{len(self.built)}", request, is_ahead, used=self.used)
        if self.may_destroy:
            made.may_go.set()
        self.built.append(made)
        return made

    @property
    def ahead(self) -> list[CountedSandbox]:
        return [sandbox for sandbox in self.built if sandbox.is_ahead]


Make = Callable[..., PooledBackend]


@pytest.fixture
def backend() -> CountingBackend:
    return CountingBackend()


@pytest.fixture
async def make(backend: CountingBackend) -> AsyncIterator[Make]:
    pools = []

    def make_pool(**settings: Any) -> PooledBackend:
        chosen = {"pool_ready_per_package": 2, **settings}
        pools.append(PooledBackend(backend, Settings(**chosen)))
        return pools[-1]

    yield make_pool
    backend.may_build.set()
    for sandbox in backend.built:
        sandbox.may_go.set()
    for pool in pools:
        await pool.close()


async def use(pool: PooledBackend, request: SandboxRequest = REQUEST) -> str:
    """One invocation. Returns the sandbox's id."""
    sandbox = await pool.prepare(request)
    await sandbox.call({}, CallContext("inv_1", "key_1", "a", "1.0.0"), NoServices())
    await sandbox.destroy()
    return sandbox.id


class NoServices:
    def log(self, stream: str, level: str, message: str) -> None: ...

    def progress(self, fraction: float | None, message: str) -> None: ...

    def event(self, value: object) -> None: ...

    async def request(self, method: str, params: JsonObject) -> None: ...


async def settled() -> None:
    """Let everything that can go on without outside help go on."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_nothing_is_built_ahead_for_a_first_call(
    make: Make, backend: CountingBackend
) -> None:
    pool = make()
    await use(pool)
    await settled()
    assert backend.ahead == []


async def test_from_the_second_call_on_one_is_ready_and_used_once(
    make: Make, backend: CountingBackend
) -> None:
    pool = make()
    await use(pool)
    await use(pool)
    await settled()
    assert pool.ready == 2  # Both calls found nothing: the second asked for one, and missed it.
    ids = []
    for _ in range(6):
        ids.append(await use(pool))
        await settled()
    assert all(sandbox.calls <= 1 for sandbox in backend.built)
    assert len(set(ids)) == 6
    assert all(backend.built[int(number.removeprefix("sbx_"))].is_ahead for number in ids)
    assert all(sandbox.is_awake for sandbox in backend.ahead if sandbox.calls)


async def test_other_limits_networks_and_variables_are_other_shelves(
    make: Make, backend: CountingBackend
) -> None:
    pool = make()
    await use(pool)
    await use(pool)
    await settled()
    others = [
        of_package("sha256:2"),
        replace(REQUEST, limits=replace(REQUEST.limits, memory_bytes=128 * MIB)),
        replace(REQUEST, network=("example.org",)),
        replace(REQUEST, environment={"MODE": "fast"}),
        replace(REQUEST, program=replace(REQUEST.program, entry=("other.py",))),
        replace(REQUEST, program=replace(REQUEST.program, environment=Path("/environment"))),
    ]
    for other in others:
        sandbox = await pool.prepare(other)
        assert backend.built[int(sandbox.id.removeprefix("sbx_"))].request == other
        await sandbox.destroy()


async def test_requests_with_inputs_mounted_are_built_when_they_come(
    make: Make, backend: CountingBackend
) -> None:
    pool = make()
    for _ in range(4):
        await use(pool, REQUEST_WITH_INPUT)
    await settled()
    assert backend.ahead == []


async def test_the_dead_are_not_handed_out_and_not_replaced_for_ever(
    make: Make, backend: CountingBackend
) -> None:
    pool = make()
    await use(pool)
    await use(pool)
    await settled()
    for _ in range(10):
        for sandbox in backend.ahead:
            sandbox.is_alive = sandbox.calls > 0
        used = await use(pool)
        assert backend.built[int(used.removeprefix("sbx_"))].is_alive
        await settled()
    dead = [sandbox for sandbox in backend.ahead if not sandbox.is_alive]
    assert 3 <= len(dead) <= 4
    assert all(sandbox.is_destroyed for sandbox in dead)


async def test_what_is_ready_is_bounded_in_all(make: Make, backend: CountingBackend) -> None:
    pool = make(pool_ready=3)
    for name in "abcd":
        for _ in range(3):
            await use(pool, of_package(name))
            await settled()
            assert pool.ready <= 3
    # The room went to the packages that were used last.
    await settled()
    idle = {sandbox.request.program.digest for sandbox in backend.ahead if not sandbox.is_destroyed}
    assert "d" in idle
    assert "a" not in idle


async def test_what_is_ready_is_bounded_in_memory(make: Make, backend: CountingBackend) -> None:
    backend.used = 40 * MIB
    pool = make(pool_memory_mb=100, pool_ready_per_package=10)
    for _ in range(6):
        await use(pool)
        await settled()
    assert pool.ready == 2


async def test_a_shelf_that_is_not_used_is_emptied(make: Make, backend: CountingBackend) -> None:
    pool = make(pool_idle_seconds=0.05)
    await use(pool)
    await use(pool)
    async with asyncio.timeout(10):
        while not backend.ahead or pool.ready:  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0.005)
        while not all(sandbox.is_destroyed for sandbox in backend.ahead):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_nothing_is_filled_while_a_call_waits_to_be_built(
    make: Make, backend: CountingBackend
) -> None:
    pool = make()
    await use(pool)
    backend.may_build.clear()
    calls = [asyncio.create_task(use(pool)) for _ in range(3)]
    await settled()
    backend.may_build.set()
    await asyncio.gather(*calls)
    assert not any(sandbox.is_ahead for sandbox in backend.built[:4])
    await settled()
    assert pool.ready == 2


async def test_a_call_takes_the_one_that_is_being_filled(
    make: Make, backend: CountingBackend
) -> None:
    pool = make(pool_ready_per_package=1)
    await use(pool)
    backend.may_build.set()
    first = asyncio.create_task(use(pool))
    await first
    backend.may_build.clear()
    await settled()  # The filler is at work now.
    second = asyncio.create_task(use(pool))
    await settled()
    backend.may_build.set()
    used = await second
    assert backend.built[int(used.removeprefix("sbx_"))].is_ahead


async def test_a_call_that_was_cancelled_while_it_waited_loses_nothing(
    make: Make, backend: CountingBackend
) -> None:
    pool = make(pool_ready_per_package=1)
    await use(pool)
    await use(pool)
    backend.may_build.clear()
    await settled()
    waiting = asyncio.create_task(use(pool))
    await settled()
    waiting.cancel()
    await asyncio.wait([waiting])
    backend.may_build.set()
    await settled()
    assert pool.ready == 1


async def test_what_cannot_be_built_ahead_is_built_when_it_is_called(
    make: Make, backend: CountingBackend
) -> None:
    backend.refuses = True
    pool = make()
    for _ in range(4):
        await use(pool)
        await settled()
    assert [sandbox.calls for sandbox in backend.built] == [1, 1, 1, 1]


async def test_zero_switches_it_off(make: Make, backend: CountingBackend) -> None:
    pool = make(pool_ready_per_package=0)
    for _ in range(4):
        await use(pool)
    await settled()
    assert backend.ahead == []


async def test_destroy_does_not_wait_but_too_many_do_and_close_waits_for_all(
    make: Make, backend: CountingBackend
) -> None:
    backend.may_destroy = False
    pool = make(pool_ready_per_package=0)
    sandboxes = [await pool.prepare(REQUEST) for _ in range(10)]
    for sandbox in sandboxes[:8]:
        await sandbox.destroy()
        await sandbox.destroy()
    assert not any(sandbox.is_destroyed for sandbox in backend.built)
    ninth = asyncio.create_task(sandboxes[8].destroy())
    await settled()
    assert not ninth.done()
    backend.built[0].may_go.set()
    await ninth
    closing = asyncio.create_task(pool.close())
    await settled()
    assert not closing.done()
    assert not backend.is_closed
    for sandbox in backend.built:
        sandbox.may_go.set()
    await closing
    assert backend.is_closed


async def test_blanks_are_ready_from_the_first_call_on(
    make: Make, backend: CountingBackend
) -> None:
    pool = make(pool_blank=2)
    await settled()
    assert backend.blanks.made == 0
    await use(pool)
    await settled()
    assert backend.blanks.ready == 2
    backend.blanks.ready -= 1  # As a call takes one.
    await use(pool, REQUEST_WITH_INPUT)
    await settled()
    assert backend.blanks.ready == 2


async def test_blanks_are_given_up_for_what_is_bound(make: Make, backend: CountingBackend) -> None:
    for limit in ({"pool_ready": 2}, {"pool_memory_mb": 16}):
        backend.blanks.ready = 0
        pool = make(pool_blank=2, **limit)
        await use(pool)
        await settled()
        assert backend.blanks.ready == 2
        await use(pool)
        await settled()
        assert (pool.ready, backend.blanks.ready) == (2, 0)


async def test_blanks_go_when_nothing_is_called(make: Make, backend: CountingBackend) -> None:
    pool = make(pool_blank=2, pool_idle_seconds=0.05)
    await use(pool)
    async with asyncio.timeout(10):
        while backend.blanks.made < 2 or not pool.is_empty:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.005)
    assert backend.blanks.ready == 0


async def test_a_blank_that_cannot_be_made_is_not_tried_for_ever(
    make: Make, backend: CountingBackend
) -> None:
    pool = make(pool_blank=2)
    backend.blanks.refuses = True
    for count in (1, 2):
        await use(pool)
        await settled()
        assert backend.blanks.made == count


@pytest.mark.parametrize("off", [{"pool_blank": 0}, {"pool_ready_per_package": 0}])
async def test_blanks_can_be_switched_off(
    make: Make, backend: CountingBackend, off: dict[str, int]
) -> None:
    pool = make(**off)
    await use(pool)
    await settled()
    assert backend.blanks.made == 0
