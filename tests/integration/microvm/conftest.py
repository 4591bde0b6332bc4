"""Real guests: one image for all tests, one snapshot for each package."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.microvm.backend import MicrovmBackend
from tests.integration.microvm import machines


@pytest.fixture(scope="session", autouse=True)
def _only_at_full_scale() -> None:
    if os.environ.get("SWARM_TEST_SCALE") != "full":
        pytest.skip("guests under software emulation take minutes: `make prove` boots them")


@pytest.fixture(scope="session")
def settings() -> Settings:
    return machines.image_settings()


@pytest.fixture
async def backend(settings: Settings) -> AsyncIterator[MicrovmBackend]:
    made = MicrovmBackend(settings)
    yield made
    await made.close()
