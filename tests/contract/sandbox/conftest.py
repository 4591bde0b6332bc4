"""Every backend serves the same contract, the tests of a module one after the other.

So they also show that a call leaves nothing behind for the next, however it ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

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


@pytest_asyncio.fixture(params=LEVELS, scope="module", loop_scope="module")
async def isolated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SandboxBackend | None]:
    """The backend of a level; None for the level without isolation."""
    settings = Settings(home=tmp_path_factory.mktemp("contract") / "home")
    made: SandboxBackend
    if request.param == "none":
        yield None
        return
    if request.param == "microvm":
        made = MicrovmBackend(machines.image_settings())  # Whose home has the snapshots.
    else:
        made = NamespaceBackend(settings)
        if request.param == "pool":
            made = PooledBackend(made, settings)
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def backend(isolated: SandboxBackend | None, tmp_path: Path) -> AsyncIterator[SandboxBackend]:
    if isolated is not None:
        yield isolated
        return
    # It takes this process's own streams, which pytest changes from test to test.
    made = UnisolatedBackend(Settings(home=tmp_path / "home"))
    yield made
    await made.close()


@pytest.fixture
def call(tmp_path: Path, backend: SandboxBackend) -> Caller:
    return Caller(tmp_path, backend)
