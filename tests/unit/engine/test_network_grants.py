"""A step may narrow the hosts that its agent was granted, never widen them."""

from __future__ import annotations

import pytest

from swarm.engine.invocations import covers


@pytest.mark.parametrize(
    ("pattern", "host", "covered"),
    [
        ("*", "example.com", True),
        ("example.com", "example.com", True),
        ("example.com", "api.example.com", False),
        ("*.example.com", "api.example.com", True),
        ("*.example.com", "*.api.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("*.example.com", "*", False),
        ("api.example.com", "*.example.com", False),
    ],
)
def test_covers(pattern: str, host: str, covered: bool) -> None:
    assert covers(pattern, host) is covered
