"""The two levels at which attacks are made: as root, and as an ordinary user."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.security.attacks.ground import CannotRun, Ground


@pytest.fixture(scope="session", params=["root", "user"])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("these tests were not started as root")
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(Ground(request.param))
        except CannotRun as reason:
            pytest.skip(str(reason))
        yield made
