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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import swarm
from swarm.definitions.agent import AgentDefinition
from swarm.definitions.files import FileValue
from swarm.definitions.loading import load_agent
from swarm.definitions.values import check_values
from swarm.kernel.json import dumps, loads
from tests.integration.catalog.web_server import WebServer, serve

CATALOG = Path(swarm.__file__).parent / "catalog"


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
    tokens: int = 0

    def log(self, message: str, level: str = "info") -> None:
        self.lines.append(f"{level}: {message}")

    def progress(self, fraction: float | None, message: str = "") -> None:
        assert fraction is None or 0 <= fraction <= 1

    def secret(self, name: str) -> str:
        return self.secrets[name]

    def usage(self, *, tokens: int = 0, usd: float = 0.0) -> None:
        self.tokens += tokens


def file_value(path: Path, media_type: str | None = None) -> dict[str, Any]:
    """A reference to a file or folder, as the engine would pass it."""
    size = path.stat().st_size if path.is_file() else None
    return FileValue("live:test", path.name or "/", size, media_type).as_json()


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

    def __call__(self, name: str, /, **inputs: Any) -> dict[str, Any]:
        package = CATALOG / "agents" / name
        definition = load_agent(package / "agent.yaml")
        paths = {f.name: f for f in definition.inputs if f.type in ("file", "directory")}
        values = {n: file_value(Path(v)) if n in paths else v for n, v in inputs.items()}
        given = check_values(definition.inputs, values, subject=name)
        given |= {n: str(inputs[n]) for n in paths}
        result = loads(dumps(self._run(definition, package, given)))
        files = {f.name for f in definition.outputs if f.type == "file"}
        handed = {n: self.outputs / result[n]["$file"] for n in files}
        kinds = {n: result[n]["media_type"] for n in files}
        values = {n: file_value(path, kinds[n]) for n, path in handed.items()}
        outputs = check_values(definition.outputs, result | values, subject=name, kind="output")
        return outputs | handed

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


@pytest.fixture
def web() -> Iterator[WebServer]:
    with serve() as server:
        yield server


@pytest.fixture
def other_web() -> Iterator[WebServer]:
    with serve() as server:
        yield server


@dataclass
class Report:
    """Everything that the steps of repo-report gave for one repository."""

    outputs: dict[str, dict[str, Any]]
    folder: Path

    def __getitem__(self, step: str) -> dict[str, Any]:
        return self.outputs[step]

    def text(self, name: str) -> str:
        return (self.folder / name).read_text("utf-8")

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text("files.jsonl").splitlines()]


@pytest.fixture
def report_on(agents: Agents) -> Callable[..., Report]:
    """Runs the steps of repo-report one after the other, as its workflow connects them."""

    def run(path: Path, *, name: str = "example", as_of: str = "") -> Report:
        files = agents("repo-files", path=str(path))
        listing, documents = files["listing"], files["documents"]
        found = {
            "activity": agents("repo-activity", path=str(path), as_of=as_of),
            "dependencies": agents("repo-dependencies", documents=documents, listing=listing),
            "licence": agents("repo-licence", documents=documents),
            "debt": agents("repo-debt", path=str(path), listing=listing),
            "tests": agents("repo-tests", path=str(path), listing=listing, documents=documents),
        }
        passed_on = ("totals", "languages", "largest_files", "submodules", "documentation", "notes")
        score = agents("repo-score", name=name, files={k: files[k] for k in passed_on}, **found)
        found |= {"files": files, "score": score}
        found["markdown"] = agents("repo-markdown", report=score["report"])
        found["html"] = agents("repo-html", report=score["report"])
        return Report(found, agents.outputs)

    return run
