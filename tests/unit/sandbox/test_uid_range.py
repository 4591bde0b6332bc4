"""Uids for sandboxes, on hosts and in containers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.sandbox.linux.uid_range import BLOCK, UidRange, find_range

HOST = "         0          0 4294967295\n"


def test_a_host_has_the_range_that_nobody_uses() -> None:
    assert find_range(HOST, HOST) == UidRange(0x70000000, 0x10000000 // BLOCK)


def test_a_container_has_the_upper_part_of_what_it_has() -> None:
    container = "0 100000 65536\n"
    found = find_range(container, container)
    assert found is not None
    assert found.first == 10_000
    assert found.first + found.blocks * BLOCK <= 60_000


def test_rootless_containers_map_root_apart() -> None:
    rootless = "0 1000 1\n1 100000 65535\n"
    found = find_range(rootless, rootless)
    assert found is not None
    assert found.blocks == 48


@pytest.mark.parametrize("text", ["0 1000 1\n", "", "0 1000 10500\n"])
def test_a_handful_of_ids_is_too_few(text: str) -> None:
    assert find_range(text, HOST) is None
    assert find_range(HOST, text) is None


@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(1, 2**31)), max_size=4))
def test_it_never_leaves_what_is_mapped(extents: list[tuple[int, int]]) -> None:
    text = "".join(f"{first} 0 {count}\n" for first, count in extents)
    found = find_range(text, HOST)
    if found is not None:
        last = found.first + found.blocks * BLOCK - 1
        assert found.first >= 10_000
        assert any(first <= found.first and last < first + count for first, count in extents)
