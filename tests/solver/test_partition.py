"""The dynamic programme against brute force and against a mixed-integer programme that knows nothing of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, milp

from perfmodel.solver.partition import Costs, fluid_bound, partition


def cost_table(rng: np.random.Generator, stages: int, layers: int, *, missing: float = 0.1) -> Costs:
    """Growing, not linear, with some counts that do not fit."""
    table = np.cumsum(rng.random((stages, layers + 1)), axis=1)
    table[rng.random(table.shape) < missing] = np.inf
    return table


def brute_force(table: Costs, passes: float) -> float:
    stages, layers = table.shape[0], table.shape[1] - 1
    best = np.inf
    for counts in itertools.product(range(1, layers + 1), repeat=stages):
        if sum(counts) == layers:
            times = [table[i, n] for i, n in enumerate(counts)]
            if np.isfinite(times).all():
                best = min(best, (passes - 1.0) * max(times) + sum(times))
    return best


def mixed_integer(table: Costs, passes: float) -> float:
    """HiGHS: one binary per (stage, count), the slowest stage as a variable."""
    stages, layers = table.shape[0], table.shape[1] - 1
    finite = np.where(np.isfinite(table), table, 0.0)
    binaries = stages * layers
    cost = np.append(finite[:, 1:].ravel(), passes - 1.0)
    one = np.hstack([np.kron(np.eye(stages), np.ones(layers)), np.zeros((stages, 1))])
    placed = np.append(np.tile(np.arange(1, layers + 1), stages), 0.0)[None, :]
    below = np.hstack([np.kron(np.eye(stages), np.ones(layers)) * finite[:, 1:].ravel(), -np.ones((stages, 1))])
    constraints = [
        LinearConstraint(one, 1, 1),
        LinearConstraint(placed, layers, layers),
        LinearConstraint(below, -np.inf, 0),
    ]
    upper = np.append(np.isfinite(table[:, 1:]).ravel().astype(float), np.inf)
    found = milp(cost, constraints=constraints, integrality=np.append(np.ones(binaries), 0), bounds=(0, upper))
    return float(found.fun) if found.success else np.inf


@pytest.mark.parametrize("seed", range(40))
def test_it_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stages, layers, passes = int(rng.integers(1, 5)), int(rng.integers(5, 9)), float(rng.integers(1, 30))
    table = cost_table(rng, stages, layers)
    found, best = partition(table, passes), brute_force(table, passes)
    if found is None:
        assert best == np.inf
    else:
        assert found.seconds(passes) == pytest.approx(best, rel=1e-12)
        assert sum(found.layers) == layers


@pytest.mark.parametrize("seed", range(8))
def test_no_mixed_integer_programme_beats_it(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    table, passes = cost_table(rng, 5, 24), float(rng.integers(2, 60))
    found = partition(table, passes)
    assert found is not None
    assert found.seconds(passes) == pytest.approx(mixed_integer(table, passes), rel=1e-6)


def test_layers_follow_speed_and_stay_above_the_bound() -> None:
    per_layer = np.array([1.0, 1.0, 2.0, 2.0])
    found = partition(np.outer(per_layer, np.arange(37)), 100.0)
    assert found is not None
    assert found.layers == (12, 12, 6, 6)
    assert found.seconds(100.0) >= fluid_bound(per_layer, 36, 100.0)
    assert partition(np.outer(np.ones(5), np.arange(5)), 4.0) is None, "fewer layers than stages"
