"""Routing that prefers experts of the same node: fewer tokens cross the network, and the router is no longer free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.elementwise import where
from perfmodel.specs.architecture import Moe
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the token copies kept near that are searched."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Share of the copies kept in the node, for models with experts."""
    routed = any(isinstance(run.layer.ffn, Moe) for run in situation.architecture.runs)
    return (Axis.of("expert_locality", SHARES if routed else SHARES[:1]),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """What the exchange of tokens reads; no loss of quality is published, so none is known."""
    del situation
    loss = where(x.expert_locality > 0.0, float("nan"), 0.0)
    return {"expert_locality": x.expert_locality, "quality_loss": loss}


TECHNIQUE = Technique(
    name="expert_locality",
    summary="the router prefers experts of the same node",
    source="J. Li et al. (LocMoE), arXiv:2401.13920; J. Yao et al. (ExFlow), arXiv:2401.08383",
    phases=frozenset({"training", "serving"}),
    neutral={"expert_locality": 0.0},
    axes=axes,
    layout=layout,
    opt_in=True,
)
