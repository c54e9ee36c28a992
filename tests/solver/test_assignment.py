"""Sequences of unlike lengths on groups of ranks: conserved, within memory, near a bound, never above one size."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import setting

from perfmodel.errors import SpecError
from perfmodel.insight import planner
from perfmodel.solver.assignment import assign, buckets_of, deal
from perfmodel.specs.lengths import long_tail_lengths

DEGREES = (1, 2, 4, 8)


def costs_of(lengths: list[int], waste: float = 0.2) -> dict[int, dict[int, float]]:
    """Quadratic and linear work, shared, and an exchange that wide groups pay."""
    return {d: {n: (1e-6 * n * n + 1e-3 * n) / d * (1.0 + waste * (d - 1)) for n in set(lengths)} for d in DEGREES}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(16, 4000), min_size=1, max_size=24))
def test_every_sequence_runs_once_within_memory_and_time(lengths: list[int]) -> None:
    found = assign(lengths, 8, costs_of(lengths), 512.0)
    placed = Counter(n for r in found.rounds for load in r.loads for n in load.lengths)
    assert placed == Counter(lengths)
    for r in found.rounds:
        assert sum(load.degree for load in r.loads) <= 8
        assert all(sum(load.lengths) <= 512.0 * load.degree + 1e-6 for load in r.loads)
    assert found.bound <= found.seconds * (1 + 1e-9)


def test_groups_of_their_own_beat_one_size() -> None:
    lengths = long_tail_lengths(64, median=200, sigma=1.2, longest=4000)
    costs = costs_of(lengths)
    adaptive = assign(lengths, 8, costs, 512.0)
    static = assign(lengths, 8, {8: costs[8]}, 512.0)
    assert adaptive.seconds < static.seconds


def test_equal_lengths_leave_nothing_to_adapt() -> None:
    lengths = [2048] * 16
    costs = costs_of(lengths)
    ratio = assign(lengths, 8, {4: costs[4]}, 512.0).seconds / assign(lengths, 8, costs, 512.0).seconds
    assert ratio == pytest.approx(1.0)


def test_near_the_best_of_all_assignments_of_a_small_case() -> None:
    """Every way to cut 4 ranks into groups and to deal five sequences to them."""
    lengths = [900, 500, 300, 200, 100]
    costs = {d: {n: n / d * (1.0 + 0.1 * (d - 1)) for n in lengths} for d in (1, 2, 4)}
    best = min(
        max(sum(costs[d][n] for n, g in zip(lengths, chosen, strict=True) if g == i) for i, d in enumerate(cut))
        for cut in ((4,), (2, 2), (2, 1, 1), (1, 1, 1, 1))
        for chosen in itertools.product(range(len(cut)), repeat=5)
    )
    assert best <= assign(lengths, 4, costs, 10_000.0).seconds <= 1.15 * best


def test_what_fits_nowhere_is_said() -> None:
    with pytest.raises(SpecError, match="does not fit the widest group"):
        assign([5000], 8, costs_of([5000]), 512.0)


def test_a_full_group_takes_no_more() -> None:
    assert deal([6, 5, 5], 2, {5: 1.0, 6: 1.0}, 10.0) == [[6], [5, 5]]
    assert deal([6, 6, 6], 2, {6: 1.0}, 10.0) is None


def test_buckets_never_shorten_a_sequence() -> None:
    lengths = long_tail_lengths(500, median=1000, sigma=1.5, longest=200_000)
    counted = buckets_of(lengths, 12)
    assert len(set(counted.values())) <= 13
    assert all(counted[n] >= n for n in lengths)


def test_a_plan_says_what_groups_chosen_per_batch_would_gain() -> None:
    found = planner.answer(
        setting("llama-3-8b", "dgx-h100", "long-mix", devices=16, pin={"tp": 1, "pp": 1},
                changes={"sequence": 65536, "global_batch": 262144})
    ).by_length  # fmt: skip
    assert found is not None
    assert 0.0 < found.bound_seconds <= found.seconds
    assert found.static_degree * found.tokens_per_rank >= 65536
    plain = planner.answer(setting("llama-3-8b", "dgx-h100", "pretrain", devices=16, pin={"tp": 1, "pp": 1}))
    assert plain.by_length is None
