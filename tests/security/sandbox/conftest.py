"""Attacks run as agents do: inside a sandbox, never outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.backend import NamespaceBackend
from tests.contract.sandbox.calling import Caller


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Caller]:
    backend = NamespaceBackend(Settings(home=tmp_path / "home"))
    yield Caller(tmp_path, backend)
    await backend.close()
