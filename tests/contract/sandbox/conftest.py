"""Every backend serves the same contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.microvm.backend import MicrovmBackend
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import SandboxBackend
from swarm.sandbox.unisolated import UnisolatedBackend
from tests.conftest import SCALE
from tests.contract.sandbox.calling import Caller
from tests.integration.microvm import machines

LEVELS = ["sandbox", "pool", pytest.param("none", marks=pytest.mark.anyone)]
if SCALE == "full":
    # Each test has a package of its own, for which a machine boots.
    LEVELS.append("microvm")


@pytest.fixture(params=LEVELS)
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SandboxBackend]:
    settings = Settings(home=tmp_path / "home")
    made: SandboxBackend
    if request.param == "none":
        made = UnisolatedBackend(settings)
    elif request.param == "microvm":
        made = MicrovmBackend(machines.image_settings())  # Whose home has the snapshots.
    else:
        made = NamespaceBackend(settings)
        if request.param == "pool":
            made = PooledBackend(made, settings)
    yield made
    await made.close()


@pytest.fixture
def call(tmp_path: Path, backend: SandboxBackend) -> Caller:
    return Caller(tmp_path, backend)
