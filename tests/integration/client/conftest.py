"""A home, an agent that does as it is told, and workflows to run with a client."""

from __future__ import annotations

from pathlib import Path

import pytest

import swarm

ACTOR = """\
name: actor
version: 1.0.0
runtime: {type: python, entry: main.py, timeout_seconds: 30}
inputs:
  - {name: say, type: string, default: ""}
  - {name: repeat, type: integer, default: 1}
  - {name: fail, type: string, default: ""}
  - {name: notes, type: string, default: "", description: "A file to note each execution in."}
  - {name: wait_for, type: string, default: "", description: "A path to wait for."}
  - {name: document, type: file, required: false}
  - {name: folder, type: directory, required: false}
outputs:
  - {name: said, type: string}
  - {name: report, type: file}
"""
ACTOR_CODE = """\
import asyncio
from pathlib import Path


async def handler(inputs, context):
    if inputs["notes"]:
        with open(inputs["notes"], "a") as file:
            file.write(f"{context.step_id} {context.attempt}\\n")
    while inputs["wait_for"] and not Path(inputs["wait_for"]).exists():
        await asyncio.sleep(0.005)
    if inputs["fail"]:
        raise ValueError(inputs["fail"])
    context.log.info(f"saying {inputs['say']}")
    said = inputs["say"]
    if inputs["document"]:
        said += Path(inputs["document"]).read_text()
    if inputs["folder"]:
        said += " ".join(sorted(path.name for path in Path(inputs["folder"]).iterdir()))
    Path(context.files.folder, "report.txt").write_text(f"report: {said}")
    report = context.files.output("report.txt", media_type="text/plain")
    return {"said": said * inputs["repeat"], "report": report}
"""
ONE = """\
name: one
version: 1.0.0
search: [say]
inputs:
  - {name: say, type: string, default: ""}
  - {name: repeat, type: integer, default: 1}
  - {name: fail, type: string, default: ""}
  - {name: document, type: file, required: false}
  - {name: folder, type: directory, required: false}
steps:
  - id: act
    agent: actor
    inputs:
      say: ${inputs.say}
      repeat: ${inputs.repeat}
      fail: ${inputs.fail}
      document: ${inputs.document}
      folder: ${inputs.folder}
outputs:
  said: ${steps.act.outputs.said}
  files: {reports: ["${steps.act.outputs.report}"]}
"""
TWO = """\
name: two
version: 1.0.0
inputs:
  - {name: notes, type: string, default: ""}
  - {name: wait_for, type: string, default: ""}
steps:
  - id: first
    agent: actor
    inputs: {say: "1", notes: "${inputs.notes}"}
  - id: second
    agent: actor
    inputs: {say: "${steps.first.outputs.said}2", notes: "${inputs.notes}",
             wait_for: "${inputs.wait_for}"}
outputs:
  said: ${steps.second.outputs.said}
"""
ASKING = """\
name: asking
version: 1.0.0
steps:
  - id: ask
    wait:
      approval:
        message: Ship it?
        form:
          - {name: version, type: string}
  - id: ship
    agent: actor
    inputs: {say: "${steps.ask.outputs.values.version} by ${steps.ask.outputs.by}"}
outputs:
  said: ${steps.ship.outputs.said}
"""
LISTENING = """\
name: listening
version: 1.0.0
steps:
  - id: heard
    wait: {event: {name: paid, key: "order-7"}}
outputs:
  amount: ${steps.heard.outputs.payload.amount}
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder with the package ``actor`` and the workflows."""
    actor = tmp_path / "sources" / "actor"
    actor.mkdir(parents=True)
    (actor / "agent.yaml").write_text(ACTOR)
    (actor / "main.py").write_text(ACTOR_CODE)
    for name, text in (("one", ONE), ("two", TWO), ("asking", ASKING), ("listening", LISTENING)):
        (actor.parent / f"{name}.yaml").write_text(text)
    return actor.parent


@pytest.fixture
async def home(tmp_path: Path, sources: Path) -> Path:
    """A home in which all of ``sources`` is registered."""
    async with swarm.Client(tmp_path / "home") as client:
        await client.register_agent(sources / "actor")
        for workflow in sorted(sources.glob("*.yaml")):
            await client.register_workflow(workflow)
    return tmp_path / "home"
