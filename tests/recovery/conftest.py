"""The recorder of writes, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recovery.power.recording import build_recorder


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_recorder(tmp_path_factory.mktemp("recorder"))
