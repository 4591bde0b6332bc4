"""Swarm, as a worker host: real store, real service. The argument says where its steps run.

``instant``: in nothing at all, answered at once, so that what is measured is the engine and its
journal. ``sandbox``: in a fresh sandbox for every step.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import work
from msgspec.structs import replace

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.bootstrap.backends import Backends
from swarm.engine.api import RunRequest
from swarm.kernel.configuration import load_settings
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import (
    CallContext,
    GuestServices,
    InvocationResult,
    Isolation,
    Outcome,
    Sandbox,
    SandboxRequest,
)
from swarm.store.records import RunRecord, RunState

NO_OP = """\
name: no-op
version: 1.0.0
runtime: {type: python, entry: main.py}
inputs: [{name: value, type: integer}]
outputs: [{name: value, type: integer}]
"""
NO_OP_HANDLER = """\
async def handler(inputs):
    return {"value": inputs["value"] + 1}
"""
CLOCK = """\
name: clock
version: 1.0.0
runtime: {type: python, entry: main.py}
outputs: [{name: began, type: integer}]
"""
CLOCK_HANDLER = """\
import time

async def handler(inputs):
    return {"began": time.monotonic_ns()}
"""
CLOCK_WORKFLOW = """\
name: clock
version: 1.0.0
steps:
  - {id: first, agent: clock}
outputs: {began: "${steps.first.outputs.began}"}
"""

MAX_PARALLEL = 1000
"""The most that `max_parallel` may be."""


class InstantSandbox:
    """See :class:`swarm.sandbox.ports.Sandbox`: answers like the handlers above."""

    id = "instant"
    isolation = Isolation.NONE
    layers = ("none",)

    async def call(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> InvocationResult:
        if context.agent == "clock":
            return InvocationResult(Outcome.OK, {"began": time.monotonic_ns()})
        return InvocationResult(Outcome.OK, {"value": inputs["value"] + 1})

    async def outputs_descriptor(self) -> int:
        raise NotImplementedError("no handler here has files")

    async def destroy(self) -> None: ...


class InstantBackend:
    """See :class:`swarm.sandbox.ports.SandboxBackend`."""

    async def prepare(self, request: SandboxRequest) -> Sandbox:
        return InstantSandbox()

    async def close(self) -> None: ...


def chain_workflow(steps: int) -> str:
    """A workflow in which each step takes what the one before it gave."""
    lines = [f"name: chain-{steps}", "version: 1.0.0", "steps:"]
    for step in range(steps):
        value = "0" if step == 0 else f'"${{steps.s{step - 1}.outputs.value}}"'
        lines += [f"  - id: s{step}", "    agent: no-op", f"    inputs: {{value: {value}}}"]
    lines += [f'outputs: {{value: "${{steps.s{steps - 1}.outputs.value}}"}}']
    return "\n".join(lines) + "\n"


def fan_workflow(width: int) -> str:
    """A workflow whose first step runs for each of ``width`` items, and one that counts them."""
    return f"""\
name: fan-{width}
version: 1.0.0
variables: {{items: {list(range(width))}}}
steps:
  - id: each
    agent: no-op
    for_each: "${{variables.items}}"
    max_parallel: {min(width, MAX_PARALLEL)}
    inputs: {{value: "${{item}}"}}
  - id: join
    agent: no-op
    inputs: {{value: "${{steps.each.outputs | length - 1}}"}}
outputs: {{value: "${{steps.join.outputs.value}}"}}
"""


async def register(swarm: Swarm, folder: Path, sizes: work.Sizes) -> None:
    for name, manifest, handler in (
        ("no-op", NO_OP, NO_OP_HANDLER),
        ("clock", CLOCK, CLOCK_HANDLER),
    ):
        package = folder / name
        package.mkdir()
        (package / "agent.yaml").write_text(manifest)
        (package / "main.py").write_text(handler)
        await swarm.agents.register(package)
    texts = [chain_workflow(steps) for steps in {sizes.chain, work.SHORT_RUN_STEPS}]
    for number, text in enumerate([*texts, fan_workflow(sizes.fan), CLOCK_WORKFLOW]):
        path = folder / str(number) / "workflow.yaml"
        path.parent.mkdir()
        path.write_text(text)
        await swarm.workflows.register(path)


async def run_to_end(swarm: Swarm, workflow: str, isolation: Isolation) -> RunRecord:
    run = await swarm.runs.create(RunRequest(workflow, isolation=isolation))
    await swarm.runs.start(run.id)
    ended = await swarm.runs.wait(run.id)
    if ended.status is not RunState.SUCCEEDED or ended.outputs is None:
        raise RuntimeError(f"{workflow} ended as {ended.status}: {ended.error}")
    return ended


class SwarmEngine:
    """See :class:`work.Engine`."""

    def __init__(self, swarm: Swarm, isolation: Isolation) -> None:
        self._swarm = swarm
        self._isolation = isolation

    async def chain(self, steps: int) -> int:
        ended = await run_to_end(self._swarm, f"chain-{steps}", self._isolation)
        assert ended.outputs is not None
        return int(ended.outputs["value"])

    async def fan(self, width: int) -> int:
        ended = await run_to_end(self._swarm, f"fan-{width}", self._isolation)
        assert ended.outputs is not None
        return int(ended.outputs["value"])

    async def first_steps(self, count: int) -> list[float]:
        ready = asyncio.Event()
        host = asyncio.create_task(self._swarm.runs.work(False, ready.set))
        await ready.wait()
        home = str(self._swarm.home.root)
        try:
            return await work.first_steps_of(__file__, home, str(count), self._isolation)
        finally:
            host.cancel()
            await asyncio.gather(host, return_exceptions=True)


async def ask(home: Path, count: int, isolation: Isolation) -> None:
    """Be the process that asks for runs, as `swarm run` is."""
    samples = []
    async with open_swarm(settings_for(home), role="run") as swarm:
        for _ in range(count + work.WARM_UP_RUNS):
            await asyncio.sleep(work.BETWEEN_SECONDS)
            asked = time.monotonic_ns()
            ended = await run_to_end(swarm, "clock", isolation)
            assert ended.outputs is not None
            samples.append(work.milliseconds_since(asked, ended.outputs["began"]))
    sys.stdout.write(json.dumps(samples[work.WARM_UP_RUNS :]) + "\n")


def settings_for(home: Path) -> Settings:
    return replace(load_settings(), home=home)


async def main() -> None:
    folder, sizes, works, (where,) = work.arguments()
    settings = settings_for(folder / "home")
    isolation = Isolation.NONE if where == "instant" else Isolation.SANDBOX
    made = {Isolation.NONE: InstantBackend()} if isolation is Isolation.NONE else {}
    backends = Backends(settings, made)
    async with open_swarm(settings, role="worker", backends=backends) as swarm:
        await register(swarm, folder, sizes)
        await work.measure(SwarmEngine(swarm, isolation), sizes, works)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        asyncio.run(ask(Path(sys.argv[1]), int(sys.argv[2]), Isolation(sys.argv[3])))
    else:
        asyncio.run(main())
