"""How long a failed step waits before it is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.definitions.workflow import RetryDefinition
from swarm.engine.steps import retry_delay


def test_pauses_grow_by_the_factor_up_to_the_limit() -> None:
    retry = RetryDefinition(delay_seconds=1.0, backoff=3.0, max_delay_seconds=10.0, jitter=0.0)
    assert [retry_delay(retry, failures) for failures in (1, 2, 3, 4)] == [1.0, 3.0, 9.0, 10.0]


@given(
    st.integers(1, 10_000),
    st.floats(1, 100),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_pause_is_finite_and_within_the_jitter_of_its_limit(
    failures: int, backoff: float, jitter: float, drawn: float
) -> None:
    retry = RetryDefinition(backoff=backoff, jitter=jitter, max_delay_seconds=60.0)
    pause = retry_delay(retry, failures, lambda: drawn)
    assert 0 <= pause <= 60.0 * (1 + jitter)
