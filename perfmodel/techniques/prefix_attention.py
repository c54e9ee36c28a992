"""A prefix that requests share is read once for all that decode together, as products of many queries.

The cache holds it once whatever the kernels do, since blocks are found by their contents; here its traffic is shared,
too. Results over the prefix and over a sequence's own keys are joined exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.elementwise import Scalar
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan, Settled, tokens_kept

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """On or off where requests share a prefix."""
    shared = situation.workload.shared_prefix > 0
    return (Axis.of("prefix_together", (0.0, 1.0) if shared else (0.0,), structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """The prefix in one read."""
    del situation
    return {"prefix_together": 1.0} if x.prefix_together else {}


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Queries that choose or keep keys for themselves have no read in common; engines of banks have no products."""
    del situation
    kept = tokens_kept(s.layout, s.context) / s.context
    elsewhere = 0.0 if s.layout.attention_engine == "main" else 1.0
    return {"prefix read together": 2.0 + elsewhere - s.layout.kv_read * kept} if x.prefix_together else {}


def describe(x: Plan) -> str:
    """Say so; nothing where every sequence reads the prefix for itself."""
    return "the shared prefix is read once per batch" if x.prefix_together else ""


TECHNIQUE = Technique(
    name="prefix_attention",
    summary="sequences that decode together read the prefix that they share once",
    source="J. Juravsky et al. (Hydragen), arXiv:2402.05099; Z. Zheng et al. (BatchLLM), arXiv:2412.03594",
    phases=frozenset({"serving"}),
    neutral={"prefix_together": 0.0},
    axes=axes,
    layout=layout,
    legal=legal,
    describe=describe,
)
