"""Formulas and simulation of queues agree with what is known, and with each other."""

from __future__ import annotations

import pytest

from benchmarks.queueing import (
    GroupCommit,
    calibrate,
    erlang_c,
    lognormal,
    mgk,
    simulate_mgk,
    simulate_runs,
)


@pytest.mark.parametrize(
    ("servers", "load", "probability"),
    [
        (1, 0.7, 0.7),  # M/M/1: the utilisation
        (2, 1.0, 1 / 3),  # 2 rho^2 / (1 + rho)
        (2, 1.6, 2 * 0.64 / 1.8),
        (10, 7.0, 0.2217),  # tables of Erlang's C
    ],
)
def test_the_probability_to_wait_is_the_one_of_the_tables(
    servers: int, load: float, probability: float
) -> None:
    assert erlang_c(servers, load) == pytest.approx(probability, abs=5e-5)


def test_one_server_waits_as_pollaczek_and_khinchine_say() -> None:
    load, service = 0.8, 10.0
    always_the_same = mgk(1, 80, service, 0)
    assert always_the_same.mean == pytest.approx(load * service / (2 * (1 - load)))
    assert mgk(1, 80, service, 1).mean == pytest.approx(load * service / (1 - load))


@pytest.mark.parametrize(
    ("servers", "variation"), [(1, 0.0), (1, 1.0), (1, 4.0), (8, 0.0), (8, 1.0)]
)
def test_the_simulation_agrees_with_the_formula(servers: int, variation: float) -> None:
    rate = 0.7 * servers / 10 * 1000
    told = mgk(servers, rate, 10, variation)
    found = simulate_mgk(servers, rate, lognormal(10, variation), 150_000)
    assert found.utilisation == pytest.approx(0.7, rel=0.05)
    assert found.mean == pytest.approx(told.mean, rel=0.2, abs=0.1)


def test_with_many_servers_and_much_variation_the_formula_is_on_the_safe_side() -> None:
    told = mgk(8, 560, 10, 4)
    assert told.mean / 2 < simulate_mgk(8, 560, lognormal(10, 4), 150_000).mean < told.mean


def test_more_than_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        mgk(2, 300, 10, 1)
    with pytest.raises(ValueError, match="do not fit"):
        GroupCommit(1, 0.5).group(2_001)


def test_a_single_run_takes_its_parts_one_after_the_other() -> None:
    assert simulate_runs(1, 0.2, GroupCommit(0.3, 0.1)) == pytest.approx(1000 / 0.6, rel=0.01)


def test_many_runs_are_bound_by_the_event_loop_or_by_the_commit() -> None:
    assert simulate_runs(50, 0.2, GroupCommit(1, 0.01)) == pytest.approx(5_000, rel=0.01)
    assert simulate_runs(500, 0.01, GroupCommit(1, 0.2)) == pytest.approx(5_000, rel=0.05)


def test_agents_that_take_their_time_bound_by_how_many_there_are() -> None:
    """Little's law: 50 runs over 100 ms are 500 a second."""
    found = simulate_runs(50, 0.01, GroupCommit(0.1, 0.001), outside=100)
    assert found == pytest.approx(500, rel=0.01)


def test_two_figures_give_back_the_parts_that_made_them() -> None:
    commit = GroupCommit(0.4, 0.0)
    chain = 1000 / simulate_runs(1, 0.15, commit)
    busy = simulate_runs(200, 0.15, commit)
    assert calibrate(chain, busy) == pytest.approx((0.15, 0.4), rel=0.02)
