"""Real guests: one image for all tests, one snapshot for each package."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.microvm.backend import MicrovmBackend
from tests.integration.microvm import machines


@pytest.fixture(scope="session")
def settings() -> Settings:
    return machines.image_settings()


@pytest.fixture
async def backend(settings: Settings) -> AsyncIterator[MicrovmBackend]:
    made = MicrovmBackend(settings)
    yield made
    await made.close()
