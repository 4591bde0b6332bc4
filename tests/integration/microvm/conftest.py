"""Real guests: one image for all tests, one snapshot for each package."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.microvm.backend import MicrovmBackend
from tests.conftest import SCALE
from tests.integration.microvm import machines


@pytest.fixture(autouse=True)
def _mostly_at_full_scale(request: pytest.FixtureRequest) -> None:
    """Under software emulation all of them take minutes; a few show that the level works."""
    if SCALE != "full" and request.node.get_closest_marker("everyday") is None:
        pytest.skip("`make prove` boots a machine for this")


@pytest.fixture(scope="session")
def settings() -> Settings:
    return machines.image_settings()


@pytest.fixture
async def backend(settings: Settings) -> AsyncIterator[MicrovmBackend]:
    made = MicrovmBackend(settings)
    yield made
    await made.close()
