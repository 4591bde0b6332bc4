"""The agent that stands in for programs: what it computes, by the standards, what it refuses."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from swarm.kernel.errors import InputError
from tests.integration.catalog.conftest import Agents


def pbkdf2(password: bytes, salt: bytes, iterations: int) -> bytes:
    """The first block of PBKDF2-HMAC-SHA256, as RFC 8018 (section 5.2) writes it down."""
    last = hmac.digest(password, salt + (1).to_bytes(4, "big"), "sha256")
    total = int.from_bytes(last, "big")
    for _ in range(iterations - 1):
        last = hmac.digest(password, last, "sha256")
        total ^= int.from_bytes(last, "big")
    return total.to_bytes(32, "big")


@pytest.mark.parametrize(("rounds", "size"), [(1, 0), (2, 1), (1000, 4095)])
def test_it_computes_what_it_says(agents: Agents, rounds: int, size: int) -> None:
    before = [agents("stand-in", task=name, size=9) for name in ("a", "b")]
    given = agents("stand-in", task="é", rounds=rounds, size=size, received=before)
    digests = b"".join(bytes.fromhex(one["digest"]) for one in before)
    digest = pbkdf2(hashlib.sha256(digests).digest(), "é".encode(), rounds)
    data = hashlib.shake_256(digest).hexdigest(size)[:size]
    assert given == {"digest": digest.hex(), "data": data}


def test_the_order_of_what_it_receives_counts(agents: Agents) -> None:
    one, other = (agents("stand-in", task=name) for name in ("a", "b"))
    results = [agents("stand-in", task="c", received=pair) for pair in ([one, other], [other, one])]
    assert results[0] != results[1]


def test_what_was_changed_on_its_way_is_noticed(agents: Agents) -> None:
    whole = agents("stand-in", task="a", size=100)
    changed = whole | {"data": whole["data"][:-1] + ("1" if whole["data"][-1] == "0" else "0")}
    with pytest.raises(ValueError, match=r"received\[1\] is not what"):
        agents("stand-in", task="b", received=[whole, changed])


@pytest.mark.parametrize(
    "inputs",
    [
        {"rounds": 0},
        {"rounds": 1_000_000_001},
        {"size": -1},
        {"size": 1_000_001},
        {"received": [{"digest": "x", "data": ""}]},
        {"received": [{"digest": "0" * 64}]},
    ],
)
def test_inputs_beyond_its_limits_are_refused(agents: Agents, inputs: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        agents("stand-in", task="a", **inputs)
