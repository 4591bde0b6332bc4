"""Node handlers and commands in real virtual machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swarm.sandbox.microvm.backend import MicrovmBackend
from swarm.sandbox.ports import Limits, Outcome, SandboxRequest
from tests.contract.sandbox.calling import CONTEXT, MEBIBYTE, RecordingServices
from tests.integration.microvm import machines

LIMITS = Limits(memory_bytes=128 * MEBIBYTE, timeout_seconds=120)
NODE = """
import crypto from "node:crypto";
import fs from "node:fs";
export async function handler(inputs, context) {
  console.log("from node");
  fs.writeFileSync(`${process.env.SWARM_OUTPUTS}/made.txt`, "by node");
  const key = await context.secret("KEY");
  const numbers = [Math.random(), crypto.randomUUID(), crypto.randomBytes(8).toString("hex")];
  return { twice: inputs.number * 2, key, numbers, year: new Date().getFullYear() };
}
"""
COMMAND = """#!/bin/sh
echo "from the command" >&2
echo "in a file" > "$SWARM_OUTPUTS/made.txt"
printf '{"given": %s, "user": "%s"}' "$(cat)" "$(id -u)"
"""


async def call(backend: MicrovmBackend, request: SandboxRequest, given: Any) -> tuple[Any, str]:
    """The outputs, and the content of the file that was made."""
    services = RecordingServices(secrets={"KEY": "value"})
    sandbox = await backend.prepare(request)
    result = await sandbox.call(given, CONTEXT, services)
    assert result.outcome is Outcome.OK, result
    assert services.lines
    made = Path(f"/proc/self/fd/{await sandbox.outputs_descriptor()}/made.txt").read_text()
    await sandbox.destroy()
    return result.outputs, made


async def test_a_node_handler_and_its_random_numbers(
    backend: MicrovmBackend, tmp_path: Path
) -> None:
    node = machines.program(tmp_path / "package", {"main.mjs": NODE}, "node", "main.mjs")
    request = SandboxRequest(node, LIMITS)
    first, made = await call(backend, request, {"number": 21})
    assert (first["twice"], first["key"], made) == (42, "value", "by node")
    assert first["year"] >= 2025
    second, _ = await call(backend, request, {"number": 1})
    assert not set(first["numbers"]) & set(second["numbers"])


async def test_a_command(backend: MicrovmBackend, tmp_path: Path) -> None:
    command = machines.program(tmp_path / "package", {"run": COMMAND}, "command", "./run")
    outputs, made = await call(backend, SandboxRequest(command, LIMITS), {"a": 1})
    assert (outputs, made) == ({"given": {"a": 1}, "user": "1000"}, "in a file\n")
