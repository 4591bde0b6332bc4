"""What tests of lost power share: the recorder, compiled once, and folders in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recovery.power.recording import build_recorder

pytest.register_assert_rewrite("tests.recovery.kills.judging")
MEMORY = Path("/dev/shm")
"""A file system where a sync costs nothing: the model knows what it would have kept."""


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_recorder(tmp_path_factory.mktemp("recorder"))


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory where there is such a place: thousands of states are written and read."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="swarm-power-", dir=place) as folder:
        yield Path(folder)
