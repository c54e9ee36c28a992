"""Judging: every constraint as a ratio of demand to limit, so that one array gives the verdict and the distance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from perfmodel.elementwise import Scalar, maximum
from perfmodel.machine.build import Machine
from perfmodel.phases.compose import add_up
from perfmodel.techniques.base import Line, Situation, Technique
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["legality", "memory_ratios"]


def _worse(ratios: dict[str, Scalar], name: str, ratio: Scalar) -> None:
    """Keep the larger of two demands on one constraint."""
    ratios[name] = maximum(ratios[name], ratio) if name in ratios else ratio


def legality(
    x: Plan, s: Settled, techniques: Iterable[Technique], situation: Situation, ratios: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    """Constraints of all techniques added to ``ratios``; where two share a name, the worse counts."""
    merged = dict(ratios)
    for technique in techniques:
        for name, ratio in technique.legal(x, s, situation).items():
            _worse(merged, name, ratio)
    return merged


def memory_limit(tier: str) -> str:
    """Name of the constraint that a memory tier sets."""
    return tier if tier.endswith(" memory") else f"{tier} memory"


def memory_ratios(ledgers: Mapping[str, Sequence[Line]], machine: Machine) -> dict[str, Scalar]:
    """Demand / capacity of every tier, the fuller stage deciding; a tier the machine lacks has no room."""
    ratios: dict[str, Scalar] = {}
    for lines in ledgers.values():
        for tier in dict.fromkeys(line.tier for line in lines):
            demand = add_up([line.bytes for line in lines if line.tier == tier])
            _worse(ratios, memory_limit(tier), demand / machine.tiers.get(tier, 1.0))
    return ratios
