"""Real packages in real sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.ports import SandboxBackend
from tests.integration.sandbox.calling import Caller


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
async def sandboxed(home: Path) -> AsyncIterator[SandboxBackend]:
    backend = NamespaceBackend(Settings(home=home))
    yield backend
    await backend.close()


@pytest.fixture
def call(tmp_path: Path, sandboxed: SandboxBackend) -> Caller:
    return Caller(tmp_path, sandboxed)
