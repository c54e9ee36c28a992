"""Fits of serving frameworks: what they were given back is found again, and trial values are independent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.calibration.serving import blocks, predict, stated_constants
from perfmodel.calibration.serving_fit import FITTED, fit_constants
from perfmodel.calibration.serving_rows import ServingRow, read_row
from tests.calibration.test_serving_rows import row

TRUE = {"host_per_iteration": 2e-3, "first_token": 150e-3}


@pytest.fixture(name="runs")
def runs_of() -> list[ServingRow]:
    """Closed loops of one model at several concurrencies and prompts, of many releases: a prior counts as few rows."""
    given = [(c, isl, v) for c in (1, 4, 16, 64) for isl in (256, 1024, 4096) for v in range(40)]
    return [read_row(2, row(concurrency=float(c), batch_size=c, isl=isl, backend_version=v)) for c, isl, v in given]


def test_a_fit_finds_the_constants_that_rows_were_made_with(runs: list[ServingRow]) -> None:
    """Rows that the model itself made, with constants off what is believed: the prior holds them back a little."""
    made = predict(blocks(runs), lambda b: {**stated_constants(b), **TRUE})
    told = [replace(r, measured={m: float(getattr(made, m)[i]) for m in FITTED}) for i, r in enumerate(runs)]
    found = fit_constants(told, tuple(TRUE)).values
    for name, value in TRUE.items():
        assert found[name] == pytest.approx(value, rel=0.1), name


def test_trial_values_in_front_of_the_rows_are_those_one_by_one(runs: list[ServingRow]) -> None:
    """One pass over all trials: the same numbers as a pass for each."""
    prepared, trials = blocks(runs), np.array([1e-3, 2e-3, 3e-3])
    together = predict(prepared, lambda b: {**stated_constants(b), "host_per_iteration": trials[:, None]}, len(trials))
    for i, value in enumerate(trials):
        alone = predict(prepared, lambda b, v=float(value): {**stated_constants(b), "host_per_iteration": v})
        for metric in FITTED:
            assert getattr(together, metric)[i] == pytest.approx(getattr(alone, metric), rel=1e-12)
