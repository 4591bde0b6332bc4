"""Every agent of the catalog in a real sandbox, within the limits that its manifest asks for."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

import swarm
from swarm.definitions.loading import load_agent
from swarm.definitions.values import check_values
from swarm.kernel.errors import RefusedError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import Settings
from swarm.packages.entry import entry_tuple
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.ports import CallContext, InputMount, Limits, Program, SandboxRequest
from tests.conftest import Scale
from tests.integration.catalog.conftest import file_value
from tests.integration.catalog.repositories import new_repository, odd_repository
from tests.integration.catalog.web_server import WebServer

AGENTS = Path(str(swarm.__file__)).parent / "catalog" / "agents"

CONTEXT = CallContext("inv_1", "key_1", "tester", "1.0.0", run_id="run_1", step_id="step")


@dataclass
class RecordingServices:
    """The host's side of a call, kept for the test to look at."""

    secrets: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def log(self, stream: str, level: str, message: str) -> None:
        self.lines.append(f"{stream} {level}: {message}")

    def progress(self, fraction: float | None, message: str) -> None:
        assert fraction is None or 0 <= fraction <= 1

    def event(self, value: JsonValue) -> None:
        raise AssertionError(f"no agent of the catalog streams: {value}")

    async def request(self, method: str, params: JsonObject) -> JsonValue:
        if method == "secret" and params["name"] in self.secrets:
            return self.secrets[params["name"]]
        if method == "usage":
            return None
        raise RefusedError(f"the secret {params.get('name')} is not set")


@dataclass
class SandboxedAgents:
    """Calls agents of the catalog in fresh sandboxes, as the engine does."""

    backend: NamespaceBackend
    settings: Settings
    folder: Path
    services: RecordingServices = field(default_factory=RecordingServices)

    async def __call__(self, name: str, /, **inputs: Any) -> dict[str, Any]:
        definition = load_agent(AGENTS / name / "agent.yaml")
        runtime = definition.runtime
        paths = {f.name for f in definition.inputs if f.type in ("file", "directory")}
        values = {n: file_value(Path(v)) if n in paths else v for n, v in inputs.items()}
        given = check_values(definition.inputs, values, subject=name)
        program = Program(runtime.type, entry_tuple(definition), AGENTS / name, f"digest-{name}")
        limits = Limits.of(self.settings, runtime.memory_mb, runtime.timeout_seconds)
        mounts = tuple(InputMount(n, Path(inputs[n])) for n in sorted(paths))
        network = definition.permissions.network
        request = SandboxRequest(program, limits, network=network, inputs=mounts)
        sandbox = await self.backend.prepare(request)
        try:
            inside = given | {n: f"/inputs/{n}" for n in paths}
            result = await sandbox.call(inside, CONTEXT, self.services)
            assert result.error is None, f"{name}: {result.error}\n{self.services.lines}"
            files = {f.name for f in definition.outputs if f.type == "file"}
            handed = {
                n: self._take(await sandbox.outputs_descriptor(), result.outputs[n]) for n in files
            }
        finally:
            await sandbox.destroy()
        outputs = result.outputs | {n: file_value(path) for n, path in handed.items()}
        return check_values(definition.outputs, outputs, subject=name, kind="output") | handed

    def _take(self, outputs: int, value: dict[str, str]) -> Path:
        descriptor = os.open(value["$file"], os.O_RDONLY | os.O_NOFOLLOW, dir_fd=outputs)
        target = self.folder / value["$file"]
        with os.fdopen(descriptor, "rb") as source:
            target.write_bytes(source.read())
        return target


@pytest.fixture
async def sandboxed(tmp_path: Path) -> AsyncIterator[SandboxedAgents]:
    settings = Settings(home=tmp_path / "home")
    backend = NamespaceBackend(settings)
    (tmp_path / "handed").mkdir()
    yield SandboxedAgents(backend, settings, tmp_path / "handed")
    await backend.close()


async def test_echo(sandboxed: SandboxedAgents) -> None:
    assert await sandboxed("echo", message="Hé") == {"echoed": "Hé", "length": 2}


async def test_agents_of_the_network_explain_what_they_lack(sandboxed: SandboxedAgents) -> None:
    with pytest.raises(AssertionError, match="only http and https"):
        await sandboxed("http-fetch", url="file:///etc/passwd")
    with pytest.raises(AssertionError, match="ANTHROPIC_API_KEY"):
        await sandboxed("claude-chat", prompt="x")


async def test_agents_of_the_network_reach_it_through_the_proxy(
    tmp_path: Path, web: WebServer
) -> None:
    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        usage = {"input_tokens": 1, "output_tokens": 2}
        text = {"content": [{"type": "text", "text": "Hi"}], "model": "m", "usage": usage}
        body = json.dumps(text).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    web.answer = answer
    settings = Settings(home=tmp_path / "home", allowed_private_networks=("127.0.0.0/8",))
    backend = NamespaceBackend(settings)
    services = RecordingServices(secrets={"ANTHROPIC_API_KEY": "sk-test"})
    agents = SandboxedAgents(backend, settings, tmp_path, services)
    try:
        # `*` means public addresses only, and the proxy's no is not taken for the server's.
        with pytest.raises(AssertionError, match=r"refused by the egress proxy: .*not public"):
            await agents("http-fetch", url=web.url)
        assert web.requests == []
        chatted = await agents("claude-chat", prompt="x", base_url=web.url)
        assert (chatted["text"], chatted["output_tokens"]) == ("Hi", 2)
        assert web.requests[0][2]["x-api-key"] == "sk-test"
    finally:
        await backend.close()


async def test_repo_report(sandboxed: SandboxedAgents, tmp_path: Path) -> None:
    repository = odd_repository(tmp_path / "repo")
    if os.geteuid() == 0:
        for entry in (repository.path, *repository.path.rglob("*")):
            os.chown(entry, 12345, 12345, follow_symlinks=False)
    path = str(repository.path)
    files = await sandboxed("repo-files", path=path)
    listing, documents = files["listing"], files["documents"]
    found = {
        "activity": await sandboxed("repo-activity", path=path, as_of="2024-02-01"),
        "dependencies": await sandboxed("repo-dependencies", documents=documents, listing=listing),
        "licence": await sandboxed("repo-licence", documents=documents),
        "debt": await sandboxed("repo-debt", path=path, listing=listing),
        "tests": await sandboxed("repo-tests", path=path, listing=listing, documents=documents),
    }
    assert files["source"] == "git-index"
    assert files["totals"]["missing_files"] == 3
    assert found["activity"]["available"] is True
    assert found["activity"]["commits"] == 1
    passed_on = ("totals", "languages", "largest_files", "submodules", "documentation", "notes")
    score = await sandboxed("repo-score", files={k: files[k] for k in passed_on}, **found)
    markdown = await sandboxed("repo-markdown", report=score["report"])
    html = await sandboxed("repo-html", report=score["report"])
    assert markdown["report"].read_text().startswith("# Repository report: repository\n")
    assert html["report"].read_text().startswith("<!doctype html>")


async def test_many_files(sandboxed: SandboxedAgents, tmp_path: Path, scale: Scale) -> None:
    """The limits of the manifests hold for 50,000 files (``SWARM_TEST_SCALE=full``)."""
    count = scale(small=2_000, full=50_000)
    repository = new_repository(tmp_path / "repo")
    for number in range(count):
        text = "# TODO\n" * (number % 3) + "x = 1\n" * 40
        repository.write(f"d{number % 97}/t{number % 7}/f{number}.py", text)
    repository.commit()
    path = str(repository.path)
    files = await sandboxed("repo-files", path=path)
    assert files["totals"]["files"] == count
    markers = sum(number % 3 for number in range(count))
    assert files["totals"]["lines"] == 40 * count + markers
    debt = await sandboxed("repo-debt", path=path, listing=files["listing"])
    assert debt["total"] == markers
    found = await sandboxed(
        "repo-tests", path=path, listing=files["listing"], documents=files["documents"]
    )
    assert found["source_files"] == count


async def test_a_worktree_says_why_it_has_no_history(
    sandboxed: SandboxedAgents, tmp_path: Path
) -> None:
    repository = odd_repository(tmp_path / "repo")
    repository.git("worktree", "add", "--quiet", os.fspath(tmp_path / "linked"))
    files = await sandboxed("repo-files", path=str(tmp_path / "linked"))
    assert files["source"] == "folder"
    activity = await sandboxed("repo-activity", path=str(tmp_path / "linked"))
    assert activity["available"] is False
    assert "linked worktree" in activity["reason"]
