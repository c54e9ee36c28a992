"""Rings of all levels at the same time instead of one through all ranks (HO-Ring)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """One ring, or one per level where there is more than a node."""
    several = situation.devices > situation.machine.per_node
    return (Axis.of("rings", ["single", "overlapping"] if several else ["single"], structural=True),)


def undominated(values: tuple[tuple[Any, ...], ...], situation: Situation) -> tuple[tuple[Any, ...], ...]:
    """Both ways are at hand where the second is, so no collective takes longer; nothing else differs."""
    del situation
    return (("overlapping",),) if ("overlapping",) in values else values


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """What the network reads."""
    del situation
    return {} if x.rings == "single" else {"overlapping_rings": True}


TECHNIQUE = Technique(
    name="overlapping_rings",
    summary="rings inside nodes and between them run at the same time",
    source="C. Wu et al. (HO-Ring), arXiv:2310.06003",
    phases=frozenset({"training"}),
    neutral={"rings": "single"},
    axes=axes,
    layout=layout,
    by_name=True,
    undominated=undominated,
)
