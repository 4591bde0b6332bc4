"""The catalog's handlers, called directly with a small context of their own.

A package is loaded as in a sandbox: its folder first on the path, its modules under their own
names. The modules are taken out of ``sys.modules`` again, since every package has a ``main``.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema_rs
import pytest
import yaml

import swarm
from swarm.definitions.agent import AgentDefinition
from swarm.definitions.fields import FieldDefinition

CATALOG = Path(swarm.__file__).parent / "catalog"
JSON_TYPES = {"file": "object", "directory": "string"}


@dataclass
class Files:
    """``context.files``: hands out what the handler wrote below the outputs folder."""

    root: Path

    def output(self, name: str, *, media_type: str = "application/octet-stream") -> dict[str, str]:
        assert (self.root / name).is_file(), f"{name} was not written"
        return {"$file": name, "media_type": media_type}


@dataclass
class Context:
    """What a Python handler gets as ``context``."""

    files: Files
    secrets: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def log(self, message: str, level: str = "info") -> None:
        self.lines.append(f"{level}: {message}")

    def progress(self, fraction: float | None, message: str = "") -> None:
        assert fraction is None or 0 <= fraction <= 1

    def secret(self, name: str) -> str:
        return self.secrets[name]


def load_agent(name: str) -> AgentDefinition:
    manifest = CATALOG / "agents" / name / "agent.yaml"
    document = yaml.safe_load(manifest.read_text())
    return AgentDefinition.model_validate_json(json.dumps(document))


def check(fields: tuple[FieldDefinition, ...], values: dict[str, Any]) -> dict[str, Any]:
    """Values with defaults applied, checked as the engine does."""
    complete = {f.name: f.default for f in fields if f.has_default} | values
    known = {f.name: f for f in fields}
    assert set(complete) <= set(known), f"not declared: {set(complete) - set(known)}"
    for name, value in complete.items():
        declared = known[name]
        schema: dict[str, Any] = {"type": JSON_TYPES.get(declared.type, declared.type)}
        if declared.enum is not None:
            schema["enum"] = list(declared.enum)
        jsonschema_rs.validate({"allOf": [schema, declared.schema_ or {}]}, value)
        if declared.type in ("file", "directory") and isinstance(value, str):
            assert Path(os.fsencode(value).decode("utf-8", "surrogateescape")).exists()
    missing = {f.name for f in fields if f.required} - set(complete)
    assert not missing, f"missing: {missing}"
    return complete


def load_module(package: Path, name: str) -> ModuleType:
    """Import module ``name`` of ``package`` with its sibling modules, leaving no trace."""
    siblings = {path.stem for path in package.glob("*.py")}
    hidden = {sibling: sys.modules.pop(sibling, None) for sibling in siblings}
    sys.path.insert(0, str(package))
    try:
        importlib.invalidate_caches()
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(package))
        for sibling, module in hidden.items():
            sys.modules.pop(sibling, None)
            if module is not None:
                sys.modules[sibling] = module


@dataclass
class Agents:
    """Calls an agent of the catalog the way its manifest says, checking both sides."""

    outputs: Path
    secrets: dict[str, str] = field(default_factory=dict)
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.context = Context(Files(self.outputs), self.secrets)

    def __call__(self, name: str, **inputs: Any) -> dict[str, Any]:
        definition = load_agent(name)
        given = check(definition.inputs, inputs)
        for f in definition.inputs:
            if f.type == "file" and f.name in given:
                given[f.name] = str(self.outputs / given[f.name]["$file"])
        result = self._run(definition, CATALOG / "agents" / name, given)
        json.dumps(result, allow_nan=False).encode("utf-8")
        return check(definition.outputs, result)

    def _run(self, definition: AgentDefinition, package: Path, given: dict[str, Any]) -> Any:
        entry = definition.runtime.entry
        if definition.runtime.type == "python":
            handler = load_module(package, str(entry).removesuffix(".py")).handler
            arguments = (given, self.context)[: handler.__code__.co_argcount]
            previous = os.environ.get("SWARM_OUTPUTS")
            os.environ["SWARM_OUTPUTS"] = str(self.outputs)
            try:
                return handler(*arguments)
            finally:
                if previous is None:
                    del os.environ["SWARM_OUTPUTS"]
                else:
                    os.environ["SWARM_OUTPUTS"] = previous
        command = list(entry) if definition.runtime.type == "command" else node_command(str(entry))
        done = subprocess.run(
            command,
            cwd=package,
            input=json.dumps(given).encode(),
            capture_output=True,
            timeout=120,
            check=False,
            env=os.environ | {"SWARM_OUTPUTS": str(self.outputs)},
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode(errors="replace"))
        return json.loads(done.stdout)


def node_command(entry: str) -> list[str]:
    """A Node process that calls ``handler`` with the inputs on stdin."""
    program = f"""
      const {{ handler }} = require({json.dumps("./" + entry)});
      const fs = require("node:fs");
      const context = {{
        log: (message) => console.error(message),
        progress: () => {{}},
        files: {{ output: (name, options) => ({{ $file: name, media_type: options.media_type }}) }},
      }};
      const inputs = JSON.parse(fs.readFileSync(0, "utf8"));
      Promise.resolve(handler(inputs, context)).then(
        (value) => process.stdout.write(JSON.stringify(value)),
        (error) => {{ console.error(String(error)); process.exit(1); }},
      );
    """
    return ["node", "-e", program]


@pytest.fixture
def agents(tmp_path: Path) -> Agents:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    return Agents(outputs)


@dataclass
class WebServer:
    """A real HTTP server on loopback whose answers the test scripts."""

    url: str
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[BaseHTTPRequestHandler, bytes], None] | None = None


@contextmanager
def serve() -> Iterator[WebServer]:
    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            seen = {name.lower(): value for name, value in self.headers.items()}
            server.requests.append((self.command, self.path, seen, body))
            assert server.answer is not None
            server.answer(self, body)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = respond

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output quiet."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = WebServer(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


@pytest.fixture
def web() -> Iterator[WebServer]:
    with serve() as server:
        yield server


@pytest.fixture
def other_web() -> Iterator[WebServer]:
    with serve() as server:
        yield server
