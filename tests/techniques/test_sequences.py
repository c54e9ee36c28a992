"""Ranks that share a sequence: what they exchange, by ring, by both directions of it, by heads, and by states."""

from __future__ import annotations

import pytest
from planning import neutral, setting

from perfmodel.operators.state import crossing_elements, key_value_bytes
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.techniques.context_parallel import one_way_bytes, two_way_bytes


def architecture(name: str):  # type: ignore[no-untyped-def]
    return load_model(find_model(name)).architecture


def step(name: str, tokens: int, machine: str = "dgx-h100", use: tuple[str, ...] = (), **columns):  # type: ignore[no-untyped-def]
    changes = {"sequence": tokens, "global_batch": tokens}
    found = setting(name, machine, "pretrain", devices=8, use=use, changes=changes)
    x = neutral(found, micro_batch=1.0, **columns)
    return found.problem.evaluate(x)


def busy(evaluated, name: str) -> float:  # type: ignore[no-untyped-def]
    return sum(float(t.seconds) for t in evaluated.terms if t.name == name)


@pytest.mark.parametrize("ranks", [2.0, 8.0, 64.0])
def test_a_ring_passes_on_what_the_others_hold(ranks: float) -> None:
    llama = architecture("llama-2-7b")
    own = key_value_bytes(llama, 512.0, kv_split=1.0, kv_bytes=2.0)
    assert one_way_bytes(llama, 512.0, ranks, 1.0, 2.0) == pytest.approx((ranks - 1.0) * own)


def test_a_window_bounds_what_a_ring_moves() -> None:
    mistral = architecture("mistral-7b")
    moved = [one_way_bytes(mistral, 4096.0, n, 1.0, 2.0) for n in (2.0, 3.0, 64.0)]
    assert moved[0] == moved[1] == moved[2]


def test_both_directions_pay_where_heads_have_keys_of_their_own() -> None:
    """Half the bytes with multi-head attention; grouped queries send more than their few keys."""
    sizes = (1024.0, 8.0, 1.0, 2.0)
    many, few = architecture("llama-2-7b"), architecture("llama-3-8b")
    assert two_way_bytes(many, *sizes) / one_way_bytes(many, *sizes) == pytest.approx((128 + 1) / (2 * 128))
    assert two_way_bytes(few, *sizes) > one_way_bytes(few, *sizes)


def test_heads_and_tokens_are_traded_in_conserved_numbers() -> None:
    """Queries and outputs of 32 heads, keys and values of 8, each 128 wide."""
    assert crossing_elements(architecture("llama-3-8b")) == (32 * 256.0, 8 * 256.0)
    assert crossing_elements(architecture("llama-3-8b"), attention=False) == (0.0, 0.0)


def test_an_exchange_of_heads_moves_less_per_rank_the_more_ranks() -> None:
    """Each rank keeps 1/u of its numbers: 2 ranks send half, 8 ranks seven eighths of an eighth of the tokens."""
    two, eight = (busy(step("llama-2-7b", 65536, ulysses=u), "head exchange") for u in (2.0, 8.0))
    assert 0.0 < eight < two


def test_sharing_a_sequence_shares_its_work() -> None:
    """Whether tokens or heads are shared, attention takes an eighth, and each rank its own start and drain."""
    whole = busy(step("llama-2-7b", 65536), "attention")
    for columns in ({"cp": 8.0}, {"ulysses": 8.0}, {"cp": 4.0, "ulysses": 2.0}):
        assert 1.0 <= 8.0 * busy(step("llama-2-7b", 65536, **columns), "attention") / whole <= 1.05


def test_states_do_not_grow_with_the_sequence_but_tokens_do() -> None:
    def exchanged(tokens: int, way: str) -> float:
        return busy(
            step("linear-llama3-1b", tokens, use=("state_exchange",), cp=8.0, state_exchange=way), "state exchange"
        )

    for way in ("gather", "chain"):
        assert exchanged(65536, way) == exchanged(524288, way) > 0.0
    assert exchanged(524288, "tokens") > 6.0 * exchanged(65536, "tokens")


def test_only_the_chain_makes_ranks_wait() -> None:
    ways = {w: step("linear-llama3-1b", 65536, use=("state_exchange",), cp=8.0, state_exchange=w) for w in
            ("gather", "chain")}  # fmt: skip
    hidden = {w: all(t.prefetch for t in s.terms if t.name == "state exchange") for w, s in ways.items()}
    assert hidden == {"gather": True, "chain": False}
