"""Calling a package's handler as the engine does, and recording what the host is told."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from swarm.kernel.errors import RefusedError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.sandbox.ports import (
    CallContext,
    InvocationResult,
    Limits,
    Program,
    SandboxBackend,
    SandboxRequest,
)

MEBIBYTE = 1024 * 1024
CONTEXT = CallContext(
    invocation_id="inv_1",
    idempotency_key="key_1",
    agent="tester",
    agent_version="1.2.3",
    attempt=2,
    run_id="run_1",
    step_id="build",
)
LIMITS = Limits(memory_bytes=256 * MEBIBYTE, timeout_seconds=60)


@dataclass
class RecordingServices:
    """The host's side of a call, kept for the test to look at."""

    secrets: Mapping[str, str] = field(default_factory=dict)
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    progressed: list[tuple[float | None, str]] = field(default_factory=list)
    events: list[JsonValue] = field(default_factory=list)
    logged: asyncio.Event = field(default_factory=asyncio.Event)

    def log(self, stream: str, level: str, message: str) -> None:
        self.lines.append((stream, level, message))
        self.logged.set()

    def progress(self, fraction: float | None, message: str) -> None:
        self.progressed.append((fraction, message))

    def event(self, value: JsonValue) -> None:
        self.events.append(value)

    async def request(self, method: str, params: JsonObject) -> JsonValue:
        await asyncio.sleep(0)
        if method == "secret" and params["name"] in self.secrets:
            return self.secrets[params["name"]]
        raise RefusedError(f"{params.get('name')} is not granted")

    @property
    def text(self) -> str:
        return "\n".join(message for _, _, message in self.lines)


@dataclass
class Caller:
    """Writes a package and calls its handler once, in a fresh sandbox."""

    folder: Path
    backend: SandboxBackend
    services: RecordingServices = field(default_factory=RecordingServices)
    count: int = 0

    def package(self, files: Mapping[str, str]) -> Path:
        self.count += 1
        folder = self.folder / f"package-{self.count}"
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
            if text.startswith("#!"):
                path.chmod(0o755)
        return folder

    def request(
        self,
        code: str | Mapping[str, str],
        *,
        runtime: Literal["python", "node", "command"] = "python",
        entry: tuple[str, ...] | None = None,
        limits: Limits = LIMITS,
        **more: Any,
    ) -> SandboxRequest:
        default = {"python": "main.py", "node": "main.mjs", "command": "./run"}[runtime]
        files = {default: code} if isinstance(code, str) else code
        folder = self.package(files)
        program = Program(runtime, entry or (default,), folder, f"digest-{folder}")
        return SandboxRequest(program, limits, **more)

    @staticmethod
    def with_environment(request: SandboxRequest, environment: Path) -> SandboxRequest:
        return replace(request, program=replace(request.program, environment=environment))

    async def run(self, request: SandboxRequest, inputs: JsonObject) -> InvocationResult:
        sandbox = await self.backend.prepare(request)
        try:
            return await sandbox.call(inputs, CONTEXT, self.services)
        finally:
            await sandbox.destroy()

    async def __call__(
        self, code: str | Mapping[str, str], given: JsonObject | None = None, **more: Any
    ) -> InvocationResult:
        return await self.run(self.request(code, **more), given or {})


def limits(**changes: Any) -> Limits:
    return replace(LIMITS, **changes)
