"""Swarm on PostgreSQL: workers as `swarm worker` is one, with steps that are answered at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import fleet_work as work
from msgspec.structs import replace
from with_swarm import NO_OP, NO_OP_HANDLER, InstantBackend, InstantSandbox

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.bootstrap.backends import Backends
from swarm.engine.api import RunRequest
from swarm.kernel.configuration import load_settings
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import SecretStr, Settings
from swarm.sandbox.ports import (
    CallContext,
    GuestServices,
    InvocationResult,
    Isolation,
    Outcome,
    Sandbox,
    SandboxRequest,
)

MARK = """\
name: mark
version: 1.0.0
runtime: {type: python, entry: main.py}
inputs: [{name: name, type: string}, {name: value, type: integer}]
outputs: [{name: value, type: integer}]
"""


class TellingSandbox(InstantSandbox):
    """Tells of each `mark`, and answers at once."""

    def __init__(self, teller: work.Teller) -> None:
        self._teller = teller

    async def call(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> InvocationResult:
        if context.agent == "mark":
            self._teller.tell(inputs["name"])
            return InvocationResult(Outcome.OK, {"value": inputs["value"] + 1})
        return await super().call(inputs, context, services)


class TellingBackend(InstantBackend):
    """See :class:`swarm.sandbox.ports.SandboxBackend`."""

    def __init__(self, folder: Path) -> None:
        self._teller = work.Teller(folder)

    async def prepare(self, request: SandboxRequest) -> Sandbox:
        return TellingSandbox(self._teller)


def workflow(kind: str, steps: int) -> str:
    """A workflow in which each step takes what the one before it gave."""
    lines = [f"name: {kind}", "version: 1.0.0", "inputs: [{name: name, type: string}]", "steps:"]
    for step in range(steps):
        value = "0" if step == 0 else f'"${{steps.s{step - 1}.outputs.value}}"'
        if work.tells(kind, step, steps):
            agent, inputs = "mark", f'{{name: "${{inputs.name}}", value: {value}}}'
        else:
            agent, inputs = "no-op", f"{{value: {value}}}"
        lines += [f"  - id: s{step}", f"    agent: {agent}", f"    inputs: {inputs}"]
    lines += [f'outputs: {{value: "${{steps.s{steps - 1}.outputs.value}}"}}']
    return "\n".join(lines) + "\n"


async def prepare(settings: Settings, folder: Path, sizes: work.Sizes) -> None:
    async with open_swarm(settings, role="run") as swarm:
        for name, manifest in (("no-op", NO_OP), ("mark", MARK)):
            package = folder / name
            package.mkdir()
            (package / "agent.yaml").write_text(manifest)
            (package / "main.py").write_text(NO_OP_HANDLER)
            await swarm.agents.register(package)
        for kind, steps in (("run", work.RUN_STEPS), ("chain", sizes.chain), ("first", 1)):
            path = folder / f"workflow-{kind}" / "workflow.yaml"
            path.parent.mkdir()
            path.write_text(workflow(kind, steps))
            await swarm.workflows.register(path)


async def be_worker(settings: Settings, folder: Path) -> None:
    backends = Backends(settings, {Isolation.NONE: TellingBackend(folder)})
    async with open_swarm(settings, role="worker", backends=backends) as swarm:
        working = asyncio.create_task(swarm.runs.work(False, work.say_ready))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await working


class SwarmAsker:
    """See :class:`fleet_work.Asker`."""

    ended = "SELECT count(*) FROM workflow_runs WHERE status = 'succeeded'"
    poll_seconds = 0.0  # it is notified

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm

    async def ask(self, kind: str, name: str) -> None:
        """As `swarm run --detach` does."""
        request = RunRequest(kind, inputs={"name": name}, isolation=Isolation.NONE)
        run = await self._swarm.runs.create(request)
        await self._swarm.runs.start_detached(run)


async def ask(settings: Settings, url: str, folder: Path, sizes: work.Sizes) -> None:
    async with open_swarm(settings, role="run") as swarm:
        await work.measure(SwarmAsker(swarm), url, folder, sizes)


async def main() -> None:
    role, url, folder, sizes, _ = work.arguments()
    settings = replace(
        load_settings(),
        home=folder / "home",
        database_url=SecretStr(url),
        max_concurrent_runs=work.RUNS_AT_ONCE,
    )
    if role == "prepare":
        await prepare(settings, folder, sizes)
    elif role == "work":
        await be_worker(settings, folder)
    else:
        await ask(settings, url, folder, sizes)


if __name__ == "__main__":
    asyncio.run(main())
