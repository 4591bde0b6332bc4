"""Every backend serves the same contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import SandboxBackend
from swarm.sandbox.unisolated import UnisolatedBackend
from tests.contract.sandbox.calling import Caller


@pytest.fixture(params=["sandbox", "pool", "none"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SandboxBackend]:
    settings = Settings(home=tmp_path / "home")
    made: SandboxBackend
    if request.param == "none":
        made = UnisolatedBackend(settings)
    else:
        made = NamespaceBackend(settings)
        if request.param == "pool":
            made = PooledBackend(made, settings)
    yield made
    await made.close()


@pytest.fixture
def call(tmp_path: Path, backend: SandboxBackend) -> Caller:
    return Caller(tmp_path, backend)
