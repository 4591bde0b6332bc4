"""Attacks run as agents do: inside a sandbox, never outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from tests.contract.sandbox.calling import Caller


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NamespaceBackend]:
    """One for all attacks of a module: what one leaves behind, the next finds."""
    made = NamespaceBackend(Settings(home=tmp_path_factory.mktemp("walls") / "home"))
    yield made
    await made.close()


@pytest.fixture
def call(tmp_path: Path, backend: NamespaceBackend) -> Caller:
    return Caller(tmp_path, backend)
