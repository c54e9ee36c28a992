"""Failures and checkpoints: the published optima, limits, monotony, and a simulation that knows no formula."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

from perfmodel.machine.reliability import (
    Failures,
    daly_interval,
    expected_segment,
    failure_rate,
    goodput,
    optimal_goodput,
    optimal_interval,
    young_interval,
)

HOUR = 3600.0
CASES = [(10.0, 24 * HOUR), (60.0, 3 * HOUR), (600.0, 3 * HOUR), (1800.0, 2 * HOUR)]


def simulated_segment(work: float, write: float, repair: float, mtbf: float, rng: np.random.Generator) -> float:
    """One segment lived through: try until work and checkpoint pass without a failure, repair after each."""
    elapsed = 0.0
    while True:
        failure = rng.exponential(mtbf)
        if failure >= work + write:
            return elapsed + work + write
        elapsed += failure + repair


@pytest.mark.parametrize(("write", "mtbf"), CASES)
def test_the_expectation_is_that_of_a_simulation(write: float, mtbf: float) -> None:
    rng = np.random.default_rng(41)
    work, repair = young_interval(write, 1 / mtbf), 900.0
    lived = np.array([simulated_segment(work, write, repair, mtbf, rng) for _ in range(20000)])
    error = lived.std() / np.sqrt(lived.size)
    assert expected_segment(work, write, repair, 1 / mtbf) == pytest.approx(lived.mean(), abs=4 * error)


@pytest.mark.parametrize(("write", "mtbf"), CASES)
def test_no_interval_beats_the_optimum(write: float, mtbf: float) -> None:
    best = optimal_interval(write, 1 / mtbf)
    most = goodput(best, write, 900.0, 1 / mtbf)
    intervals = best * np.geomspace(0.05, 20.0, 2001)
    assert np.all(goodput(intervals, write, 900.0, 1 / mtbf) <= most * (1 + 1e-12))
    assert optimal_goodput(write, 900.0, 1 / mtbf) == pytest.approx(most, rel=1e-12)


def test_young_and_daly_are_its_limits() -> None:
    for write, mtbf in CASES:
        share = write / mtbf
        exact = optimal_interval(write, 1 / mtbf)
        assert daly_interval(write, 1 / mtbf) == pytest.approx(exact, rel=0.05 * share + 1e-9)
        assert young_interval(write, 1 / mtbf) == pytest.approx(exact, rel=2 * share**0.5)
    assert young_interval(1.0, 1e-8) == pytest.approx(optimal_interval(1.0, 1e-8), rel=1e-4)


def test_more_reliable_parts_and_faster_storage_never_hurt() -> None:
    rates = np.geomspace(1e-12, 1e-3, 400)
    by_rate = optimal_goodput(60.0, 900.0, rates)
    assert np.all(np.diff(by_rate) < 0)
    assert by_rate[0] == pytest.approx(1.0, abs=2e-5)
    assert optimal_goodput(60.0, 900.0, 0.0) == 1.0
    writes = np.geomspace(1e-3, 1e5, 400)
    assert np.all(np.diff(optimal_goodput(writes, 900.0, 1e-4)) < 0)


def test_rates_add_up() -> None:
    failures = Failures(1e-8, 2e-8, 3e-8)
    one = failure_rate(failures, 8.0, 1.0)
    assert one == pytest.approx(8 * 4e-8 + 2e-8)
    assert failure_rate(failures, 8000.0, 1000.0) == pytest.approx(1000 * one)


def test_numbers_arrays_and_symbols_agree() -> None:
    write, rate = sympy.symbols("write rate", positive=True)
    values = {"write": 60.0, "rate": 1e-4}
    for formula in (young_interval, optimal_interval, daly_interval):
        number = formula(60.0, 1e-4)
        assert float(formula(np.array([60.0, 600.0]), 1e-4)[0]) == pytest.approx(number, rel=1e-12)
        symbolic = sympy.lambdify([write, rate], formula(write, rate), modules="math")
        assert symbolic(**values) == pytest.approx(number, rel=1e-9)


def test_renewal_with_a_drain_is_that_of_a_simulation() -> None:
    """A checkpoint counts once it is written; the job goes on beside that, and falls back further when it fails."""
    rng = np.random.default_rng(3)
    work, stall, drain, repair, mean = 900.0, 60.0, 500.0, 300.0, 6000.0
    period, progress, clock = work + stall, 0, 0.0
    ahead, failure = 0.0, float(rng.exponential(mean))  # time since the state of checkpoint ``progress``
    wanted = 40_000
    while progress < wanted:
        step = period + drain - ahead  # until the next checkpoint is durable
        if failure > step:
            failure, clock, progress, ahead = failure - step, clock + step, progress + 1, drain
        else:
            clock, ahead, failure = clock + failure + repair, 0.0, float(rng.exponential(mean))
    assert wanted * work / clock == pytest.approx(goodput(work, stall, repair, 1.0 / mean, drain), rel=0.01)
    assert goodput(work, stall, repair, 1.0 / mean, 0.0) == goodput(work, stall, repair, 1.0 / mean)
