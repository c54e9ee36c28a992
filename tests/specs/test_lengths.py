"""Lengths of sequences in a workload: read, refused, and conserved when they are put into classes."""

from __future__ import annotations

import pytest
from planning import neutral, setting

from perfmodel.errors import SpecError
from perfmodel.specs.lengths import Lengths, pieces
from perfmodel.specs.workload import load_workload, revise


def test_classes_keep_tokens_and_pairs() -> None:
    lengths = Lengths(median=1000.0, sigma=1.5).sample(300, 100_000)
    classes = pieces(lengths)
    assert sum(share for _, share in classes) == pytest.approx(1.0)
    pairs = sum(n * share for n, share in classes) * sum(lengths)
    assert pairs == pytest.approx(sum(n * n for n in lengths))


def test_shares_are_of_sequences() -> None:
    found = Lengths(shares={100: 0.75, 1000: 0.25}).sample(8, 500)
    assert found == [100] * 6 + [500] * 2, "cut at the longest"


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ({"shares": {100: 0.5}}, "add up to 0.5"),
        ({"shares": {"many": 1.0}}, "whole number of tokens"),
        ({"median": 1000}, "either `shares`"),
        ({"median": 1000, "sigma": 1.0, "shares": {5: 1.0}}, "either `shares`"),
        ({"median": -1, "sigma": 1.0}, "more than 0"),
    ],
)
def test_what_makes_no_distribution_is_refused(lengths: object, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        revise(load_workload("pretrain"), {"lengths": lengths})


def test_shorter_sequences_in_a_pack_attend_to_less() -> None:
    changes = {"sequence": 32768, "global_batch": 32768 * 8}

    def attention(lengths: object) -> float:
        found = setting("llama-2-7b", "dgx-h100", "pretrain", devices=8, changes={**changes, "lengths": lengths})
        step = found.problem.evaluate(neutral(found))
        return sum(float(t.seconds) for t in step.terms if t.name == "attention")

    whole, packed, same = (attention(x) for x in (None, {"shares": {2048: 1.0}}, {"shares": {32768: 1.0}}))
    assert packed < whole / 8
    assert same == pytest.approx(whole)
