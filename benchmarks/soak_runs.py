"""What a soak's runs are, and how each of them has to end."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from swarm.bootstrap.assembly import Swarm
from swarm.engine.api import RunRequest
from swarm.kernel.json import JsonObject
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunState

CHAIN_STEPS = 5
ITEMS = 8
"""Runs that one fan-out calls."""
LARGE_REPEATS = 1600
"""Of a digest of 64 characters: 100 KiB, which is kept as an artifact."""
TIMER_SECONDS = 2.0
EVENT_SECONDS = 1.5
"""After which the event is sent that a run waits for."""
CANCEL_SECONDS = 1.0
EVENT = "soak.go"
TIMEOUT_SECONDS = 30

AGENTS = {
    "add": (
        "inputs: [{name: value, type: integer}]\noutputs: [{name: value, type: integer}]\n",
        'def handler(inputs):\n    return {"value": inputs["value"] + 1}\n',
    ),
    "total": (
        "inputs: [{name: values, type: array}]\noutputs: [{name: value, type: integer}]\n",
        'def handler(inputs):\n    return {"value": sum(inputs["values"])}\n',
    ),
    "grow": (
        "inputs: [{name: value, type: integer}]\noutputs: [{name: text, type: string}]\n",
        "import hashlib\n\n\ndef handler(inputs):\n"
        '    digest = hashlib.sha256(str(inputs["value"]).encode()).hexdigest()\n'
        f'    return {{"text": digest * {LARGE_REPEATS}}}\n',
    ),
    "check": (
        "inputs: [{name: text, type: string}]\noutputs: [{name: value, type: integer}]\n",
        "import zlib\n\n\ndef handler(inputs):\n"
        '    return {"value": zlib.crc32(inputs["text"].encode())}\n',
    ),
    "refuse": (
        "inputs: [{name: value, type: integer}]\noutputs: [{name: value, type: integer}]\n",
        "def handler(inputs):\n    print('about to refuse')\n    raise ValueError('refused')\n",
    ),
}
"""The fields of each agent's manifest, and its code: by name."""

INPUTS = "inputs: [{name: name, type: string}, {name: value, type: integer}]\n"
_CHAIN = "".join(
    f"  - id: s{step}\n    agent: add\n    inputs: {{value: "
    + ('"${inputs.value}"' if step == 0 else f'"${{steps.s{step - 1}.outputs.value}}"')
    + "}\n"
    for step in range(CHAIN_STEPS)
)
_ONE = '  - {id: add, agent: add, inputs: {value: "${inputs.value}"}}\n'
_AFTER = '  - {id: add, agent: add, needs: [wait], inputs: {value: "${inputs.value}"}}\n'
_OUTPUTS = 'outputs: {value: "${steps.add.outputs.value}"}\n'

WORKFLOWS = {
    "chain": f'steps:\n{_CHAIN}outputs: {{value: "${{steps.s{CHAIN_STEPS - 1}.outputs.value}}"}}\n',
    "item": f"steps:\n{_ONE}{_OUTPUTS}",
    "fan": f"""\
budget: {{usd: 1000}}
variables: {{items: {list(range(ITEMS))}}}
steps:
  - id: each
    workflow: item
    for_each: "${{variables.items}}"
    inputs: {{name: "${{inputs.name}}", value: "${{inputs.value + item}}"}}
  - id: add
    agent: total
    inputs: {{values: "${{steps.each.outputs | map(attribute='value') | list}}"}}
{_OUTPUTS}""",
    "large": f"""\
steps:
  - {{id: grow, agent: grow, inputs: {{value: "${{inputs.value}}"}}}}
  - {{id: add, agent: check, inputs: {{text: "${{steps.grow.outputs.text}}"}}}}
{_OUTPUTS}""",
    "boxed": f"steps:\n{_ONE}{_OUTPUTS}",
    "timer": f"steps:\n  - {{id: wait, wait: {{duration: {TIMER_SECONDS:g}}}}}\n{_AFTER}{_OUTPUTS}",
    "event": f"""\
steps:
  - {{id: wait, wait: {{event: {{name: {EVENT}, key: "${{inputs.name}}"}}}}}}
{_AFTER}{_OUTPUTS}""",
    "cancelled": f"steps:\n  - {{id: wait, wait: {{duration: 1h}}}}\n{_AFTER}{_OUTPUTS}",
    "failing": 'steps:\n  - {id: add, agent: refuse, inputs: {value: "${inputs.value}"}}\n'
    + _OUTPUTS,
}


def _checksum(value: int) -> int:
    digest = hashlib.sha256(str(value).encode()).hexdigest()
    return zlib.crc32((digest * LARGE_REPEATS).encode())


@dataclass(frozen=True)
class Kind:
    """Runs of one workflow."""

    name: str
    """Of the workflow."""
    weight: int
    """Of a hundred runs, how many are of this kind."""
    gives: Callable[[int], int] | None = lambda value: value + 1
    """What comes of an input, if something does."""
    isolation: Isolation = Isolation.NONE
    status: RunState = RunState.SUCCEEDED
    waits_seconds: float = 0.0
    """What it waits for by itself, or until it is prompted."""
    prompt: str = ""
    """``event`` or ``cancel``: what is done to it then."""

    def request(self, name: str, value: int) -> RunRequest:
        return RunRequest(
            self.name, inputs={"name": name, "value": value}, isolation=self.isolation
        )

    def outputs(self, value: int) -> JsonObject | None:
        """What the run has to give."""
        return None if self.gives is None else {"value": self.gives(value)}


KINDS = (
    Kind("chain", 70, lambda value: value + CHAIN_STEPS),
    Kind("fan", 4, lambda value: sum(value + item + 1 for item in range(ITEMS))),
    Kind("large", 5, _checksum),
    Kind("boxed", 6, isolation=Isolation.SANDBOX),
    Kind("timer", 5, waits_seconds=TIMER_SECONDS),
    Kind("event", 4, waits_seconds=EVENT_SECONDS, prompt="event"),
    Kind(
        "cancelled",
        3,
        None,
        status=RunState.CANCELLED,
        waits_seconds=CANCEL_SECONDS,
        prompt="cancel",
    ),
    Kind("failing", 3, None, status=RunState.FAILED),
)


async def register(swarm: Swarm, folder: Path) -> None:
    """Make the agents and workflows known."""
    for name, (fields, code) in AGENTS.items():
        package = folder / "agents" / name
        package.mkdir(parents=True)
        runtime = f"{{type: python, entry: main.py, timeout_seconds: {TIMEOUT_SECONDS}}}"
        head = f"name: {name}\nversion: 1.0.0\nruntime: {runtime}\n"
        (package / "agent.yaml").write_text(head + fields)
        (package / "main.py").write_text(code)
        await swarm.agents.register(package)
    item_first = sorted(WORKFLOWS, key=lambda name: name != "item")
    for name in item_first:
        path = folder / "workflows" / name / "workflow.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(f"name: {name}\nversion: 1.0.0\n{INPUTS}{WORKFLOWS[name]}")
        await swarm.workflows.register(path)
