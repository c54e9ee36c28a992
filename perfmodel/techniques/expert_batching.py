"""Batches of requests that choose the same experts, where a router in front of the model knows the choice beforehand.

Tokens that choose alike touch the experts of one: of T tokens in groups of g, E (1 - (1 - k/E)^(T/g)) are read. The
model must have such a router; then nothing that is computed changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.elementwise import Scalar
from perfmodel.specs.architecture import Moe
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Requests that choose alike, for models with experts."""
    routed = any(isinstance(run.layer.ffn, Moe) for run in situation.architecture.runs)
    return (Axis.of("requests_alike", (1, 2, 4, 8, 16, 32) if routed else (1,)),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Tokens that choose the same experts."""
    del situation
    return {"tokens_alike": 1.0 * x.requests_alike}


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """No more than there are in a pass."""
    del situation
    return {"requests alike": x.requests_alike / s.batch}


TECHNIQUE = Technique(
    name="expert_batching",
    summary="requests that choose the same experts are decoded together",
    source="R. Cai et al. (Read-ME), arXiv:2410.19123",
    phases=frozenset({"serving"}),
    neutral={"requests_alike": 1},
    axes=axes,
    layout=layout,
    legal=legal,
    by_name=True,
)
