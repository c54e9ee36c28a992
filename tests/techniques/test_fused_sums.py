"""Sums that travel beside their products: never slower than behind, never faster than the links or the product."""

from __future__ import annotations

import numpy as np
import pytest
from planning import neutral, setting

from perfmodel.techniques.fused_sums import fused_seconds, scatter_traffic


def synced(way: str, tokens: int, tp: float = 8.0) -> float:
    changes = {"sequence": tokens, "global_batch": tokens}
    found = setting("llama-2-13b", "dgx-a100", "pretrain", devices=8, use=("fused_sums",), changes=changes)
    step = found.problem.evaluate(neutral(found, tp=tp, sums=way))
    return sum(float(t.seconds) for t in step.terms if t.name == "tensor sync" and t.slot == "layer_forward")


@pytest.mark.parametrize("tokens", [256, 2048, 16384])
@pytest.mark.parametrize("way", ["fused", "chunked"])
def test_never_slower_and_never_free(way: str, tokens: int) -> None:
    assert 0.0 < synced(way, tokens) <= synced("after", tokens)


def test_a_scatter_alone_hides_at_most_half() -> None:
    assert synced("fused", 16384) >= 0.5 * synced("after", 16384) * (1 - 1e-9)


def test_one_rank_has_nothing_to_hide() -> None:
    assert synced("fused", 2048, tp=1.0) == synced("after", 2048, tp=1.0)


def test_the_longest_of_three_binds() -> None:
    rng = np.random.default_rng(3)
    for compute, memory, extra, scatter in rng.uniform(0.0, 1.0, (50, 4)):
        assert fused_seconds(compute, memory, extra, scatter) == max(compute, memory + extra, scatter)


@pytest.mark.parametrize("ranks", [2, 3, 8, 16])
def test_traffic_of_a_ring_by_counting_pieces(ranks: int) -> None:
    """Every access of a rank; the product stores all pieces in both cases, but for the first one sent."""
    reads, writes = 1, 0  # the first piece leaves
    for step in range(1, ranks):
        writes += 1  # a partial sum arrives
        reads += 2  # and is added to the own piece on its way out, or to the sum that stays
        writes += step == ranks - 1
    assert scatter_traffic(float(ranks), float(ranks), in_memory=False) == reads + writes
    updates, sent_on, stored_elsewhere = ranks - 1, ranks - 2, 1
    in_place = updates + sent_on - stored_elsewhere
    assert scatter_traffic(float(ranks), float(ranks), in_memory=True) == in_place
