"""Activation recomputation: none, the attention core only (selective), the whole layer, or operator by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import choose
from perfmodel.machine.build import Machine
from perfmodel.techniques.base import Axis, Line, Situation, Technique
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["POLICIES", "TECHNIQUE"]

POLICIES = ("none", "selective", "full", "operators")
"""``operators`` keeps the result of every second matrix product and of attention, and repeats the rest."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """None, selective and full."""
    del situation
    return (Axis.of("recompute", (0, 1, 2)),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """What the backward pass repeats and what therefore is not kept; fused kernels repeat their scores anyway."""
    core = 0.0 if situation.workload.fused_attention else 1.0
    return {
        "replay": choose(x.recompute, (0.0, 0.0, 1.0, 0.5)),
        "replay_core": choose(x.recompute, (0.0, core, 1.0, core)),
        "kept": choose(x.recompute, (1.0, 1.0, 0.0, 0.5)),
        "kept_scores": choose(x.recompute, (1.0, 0.0, 0.0, 0.0)),
    }


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """The one layer that is being recomputed holds everything it otherwise would have kept."""
    if s.kept is None:
        return []
    tier = machine.main.tier
    inner, scores = choose(x.recompute, (0.0, 0.0, 1.0, 0.5)), choose(x.recompute, (0.0, 1.0, 1.0, 1.0))
    layer = inner * s.kept.inner + scores * s.kept.scores
    return [Line("recomputed layer", tier, layer * s.sizes.tokens)]


def describe(x: Plan) -> str:
    """The policy by name."""
    return f"{('no', *POLICIES[1:])[int(x.recompute)]} recomputation"


TECHNIQUE = Technique(
    name="recompute",
    summary="activations are recomputed in the backward pass instead of kept",
    source="T. Chen et al., arXiv:1604.06174; V. Korthikanti et al., arXiv:2205.05198",
    phases=frozenset({"training"}),
    neutral={"recompute": 0},
    axes=axes,
    layout=layout,
    memory=memory,
    describe=describe,
    telling=("recompute",),
)
