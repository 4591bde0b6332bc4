"""Versions are put in the order of Semantic Versioning 2.0.0, section 11."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.store.versions import version_key

ASCENDING = (
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "2.0.0-rc-1.x-y",
    "2.0.0",
    "10.0.0",
)

identifiers = st.text("019aZ-", min_size=1, max_size=4)
versions = st.builds(
    lambda core, pre, build: ".".join(map(str, core)) + pre + build,
    st.tuples(*[st.integers(0, 20)] * 3),
    st.just("") | st.lists(identifiers, min_size=1, max_size=3).map(lambda p: "-" + ".".join(p)),
    st.just("") | st.lists(identifiers, min_size=1, max_size=3).map(lambda p: "+" + ".".join(p)),
)


def test_the_standards_own_example() -> None:
    for lower, higher in itertools.combinations(ASCENDING, 2):
        assert version_key(lower) < version_key(higher)


@given(versions, versions)
def test_the_order_is_total(one: str, other: str) -> None:
    assert (version_key(one) < version_key(other)) is not (version_key(other) <= version_key(one))
    if one != other and version_key(one) == version_key(other):
        # Only numbers written differently (`-01`) are the same place.
        assert "0" in one + other


@pytest.mark.parametrize("text", ["", "1.x.0", "v1.0.0"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        version_key(text)
