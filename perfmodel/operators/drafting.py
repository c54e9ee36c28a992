"""A drafter as operator calls: what it runs over the tokens of a pass, and what it runs again for every position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from perfmodel.elementwise import Scalar
from perfmodel.operators.layers import (
    SAMPLED_LOGIT_BYTES,
    Call,
    Sizes,
    embedding_calls,
    head_calls,
    layer_calls,
    product_call,
)
from perfmodel.operators.state import cache_bytes, layer_parameters
from perfmodel.specs.architecture import Architecture, Attention, LatentAttention, Layer, Linear, Mlp, Moe, Run
from perfmodel.specs.drafters import Drafter
from perfmodel.units import Bytes

__all__ = ["Drafting", "drafting"]

WIDTH = 2.0
"""Bytes per weight of what drafts: nobody quantises it [B]."""


class Drafting(NamedTuple):
    """A drafter for one model.

    Parameters
    ----------
    record : the drafter.
    target : the model that verifies.
    decoder : layers that run again for every position, as a model; the target's own where those draft.
    again : how many of them run for a position.
    once : further layers like them that run once over the tokens of a pass.
    positions : positions drafted.
    """

    record: Drafter
    target: Architecture
    decoder: Architecture
    again: float
    once: float
    positions: int

    @property
    def own(self) -> bool:
        """Whether its decoder layers are its own and not the model's."""
        return self.record.share is None

    @property
    def reads_features(self) -> bool:
        """Whether it needs what the model computed inside, and not only its tokens."""
        return self.record.model is None and not self.idle

    @property
    def idle(self) -> bool:
        """Whether drafting multiplies nothing: a look-up."""
        return not (self.again or self.once or self.record.growing or self.record.matrices)

    def over_the_pass(self, sizes: Sizes) -> list[Call]:
        """Layers with a cache of their own see every token of the pass."""
        count = self.once + (self.again if self.own else 0.0)
        return _scaled(layer_calls(self.decoder, self._plain(sizes)), count) if count else []

    def position(self, sizes: Sizes, position: int, width: int, *, first: bool) -> list[Call]:
        """Drafting the candidates of one position, from ``width`` candidates of the one before.

        Parameters
        ----------
        sizes : of the decode pass.
        position : from 0.
        width : candidates per sequence that are continued.
        first : its decoder layers already ran over the tokens of the pass.
        """
        one = replace(self._plain(sizes) if self.own else sizes, queries=1.0 * width)
        calls: list[Call] = []
        if self.again and not (first and self.own):
            calls += _scaled(layer_calls(self.decoder, one), self.again)
        if self.record.model is not None:
            calls += embedding_calls(self.decoder, one)
        calls += [product_call(m, one.tokens, one, "mlp") for m in self._matrices(position)]
        return calls + self._head(one)

    def at_once(self, sizes: Sizes) -> list[Call]:
        """Drafting all positions from one hidden state of every sequence."""
        one = replace(self._plain(sizes), queries=1.0)
        calls = [product_call(m, one.tokens, one, "mlp") for i in range(self.positions) for m in self._matrices(i)]
        if self.record.head == "model":  # one product for all positions
            return calls + self._head(replace(one, queries=1.0 * self.positions))
        return calls + _scaled(self._head(one), float(self.positions))

    def weights(self, split: Scalar, experts_split: Scalar) -> Bytes:
        """Bytes on one of ``split`` ranks, experts shared by ``experts_split`` times as many [B]."""
        hidden, total = float(self.target.hidden), 0.0
        if self.own and self.again + self.once:
            counts = layer_parameters(self.decoder)
            names = {*counts.split, *counts.whole, "experts"}
            layer = counts.stored(split, experts_split, dict.fromkeys(names, WIDTH))
            total = total + (self.again + self.once) * layer
        if self.record.model is not None:
            tables = self.decoder.embedding_parameters + self.decoder.head_parameters
            return total + WIDTH * tables / split
        sets = 1 if self.record.one_for_all else self.positions
        matrices = sum(m.parameters for i in range(sets) for m in self._matrices(i))
        heads = self.record.head == "own" or self.record.head_rows
        head = (self.positions if self.record.head == "own" else 1) * hidden * self._rows if heads else 0.0
        return total + WIDTH * (matrices + head) / split

    def cache(self, context: Scalar, split: Scalar, kv_bytes: Scalar) -> Bytes:
        """Keys and values of one sequence that only the drafter needs [B]."""
        if not self.own or not self.again + self.once:
            return 0.0
        return (self.again + self.once) * cache_bytes(self.decoder, context, kv_split=split, kv_bytes=kv_bytes)

    @property
    def _rows(self) -> int:
        return self.record.head_rows or self.target.vocab

    def _matrices(self, position: int) -> list[Linear]:
        hidden = self.target.hidden
        sizes = [(k + position, n) for k, n in self.record.growing] + list(self.record.matrices)
        return [Linear("draft", round(k * hidden), round(n * hidden)) for k, n in sizes]

    def _head(self, one: Sizes) -> list[Call]:
        """Output head for every new token of ``one``."""
        if self.record.head == "none":
            return []
        source = self.decoder if self.record.model is not None else self.target
        if self.record.head_rows is not None:
            source = replace(source, vocab=self.record.head_rows)
        return head_calls(source, one, rows=one.tokens, logit_bytes=SAMPLED_LOGIT_BYTES)

    def _plain(self, s: Sizes) -> Sizes:
        """The pass as something in 16 bits sees it."""
        return Sizes(
            sequences=s.sequences, queries=s.queries, context=s.context, weight_split=s.weight_split,
            expert_split=s.expert_split, imbalance=s.imbalance, kv_bytes=s.kv_bytes, cache_format=s.cache_format,
            decode=s.decode, fused_residual=s.fused_residual,
        )  # fmt: skip


def _scaled(calls: Sequence[Call], times: float) -> list[Call]:
    return [call._replace(share=call.share * times) for call in calls]


def drafting(record: Drafter, target: Architecture, positions: int, model: Architecture | None = None) -> Drafting:
    """Settle what a drafter runs for a model.

    Parameters
    ----------
    record : the drafter.
    target : the model that verifies.
    positions : positions drafted.
    model : architecture of the model that drafts, where one does.
    """
    if model is not None:
        return Drafting(record, target, model, float(model.layers), 0.0, positions)
    if record.share is not None:
        return Drafting(record, target, target, record.share * target.layers, 0.0, positions)
    like = replace(target, runs=(Run(_layer_like(target, experts=record.experts), 1),))
    return Drafting(record, target, like, float(record.layers), float(record.prefix), positions)


def _layer_like(target: Architecture, *, experts: bool) -> Layer:
    """The last layer with attention; unless it keeps its experts, as wide as those that a token passes."""
    attending = [run.layer for run in target.runs if isinstance(run.layer.mixer, (Attention, LatentAttention))]
    layer = attending[-1] if attending else target.runs[-1].layer
    if isinstance(layer.ffn, Moe) and not experts:
        f = layer.ffn
        return replace(layer, ffn=Mlp(f.hidden, f.top_k * f.width + f.shared_width, f.gated))
    return layer
