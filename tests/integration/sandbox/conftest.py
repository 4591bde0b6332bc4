"""Real packages in real sandboxes of the kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from tests.contract.sandbox.calling import Caller


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[NamespaceBackend]:
    made = NamespaceBackend(Settings(home=tmp_path / "home"))
    yield made
    await made.close()


@pytest.fixture
def call(tmp_path: Path, backend: NamespaceBackend) -> Caller:
    return Caller(tmp_path, backend)
