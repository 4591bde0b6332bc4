"""A home with a real database, and packages written in a line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.registration import AgentCatalog
from swarm.packages.workflows import WorkflowCatalog
from swarm.store.sqlite.store import SqliteStore, open_store

MANIFEST = """\
name: {name}
version: {version}
description: Says it again
runtime:
  type: python
  entry: main.py
inputs:
  - name: message
    type: string
outputs:
  - name: echoed
    type: string
"""

WritePackage = Callable[..., Path]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", durability="normal")


@pytest.fixture
def home(settings: Settings) -> Home:
    home = Home(settings.home)
    home.create()
    return home


@pytest.fixture
async def store(home: Home, settings: Settings) -> AsyncIterator[SqliteStore]:
    store = await open_store(home.database, settings)
    yield store
    await store.close()


@pytest.fixture
def agents(store: SqliteStore, home: Home, settings: Settings) -> AgentCatalog:
    return AgentCatalog(store, home, settings)


@pytest.fixture
def workflows(store: SqliteStore, agents: AgentCatalog, settings: Settings) -> WorkflowCatalog:
    return WorkflowCatalog(store, agents, settings)


@pytest.fixture
def write_package(tmp_path: Path) -> WritePackage:
    """``write_package(name, version, more="yaml lines", files={path: text})`` gives its folder."""

    def write(
        name: str = "echo",
        version: str = "1.0.0",
        *,
        more: str = "",
        files: dict[str, str] | None = None,
        manifest: str | None = None,
        folder: str | None = None,
    ) -> Path:
        root = tmp_path / "sources" / (folder or f"{name}-{version}")
        everything = {
            "agent.yaml": (manifest or MANIFEST).format(name=name, version=version) + more,
            "main.py": "def handler(inputs):\n    return inputs\n",
            **(files or {}),
        }
        for path, text in everything.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return root

    return write
