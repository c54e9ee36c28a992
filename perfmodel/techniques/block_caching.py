"""Blocks whose output changes little from step to step are computed only now and then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.elementwise import where
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]

SHARES = (0.0, 0.25, 0.5, 0.75)
EVERY = (1.0, 2.0, 3.0, 4.0)


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Share of the work that is remembered, and for how many steps; only where asked for by name."""
    if "block_caching" not in situation.excused:
        return (Axis(("cached_share", "cached_for"), ((0.0, 1.0),)),)
    pairs = [(share, every) for share in SHARES[1:] for every in EVERY[1:]]
    return (Axis(("cached_share", "cached_for"), ((0.0, 1.0), *pairs)),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Share of the work of a step that is done on average; what it costs depends on the schedule: unknown."""
    del situation
    return {
        "refreshed": 1.0 - x.cached_share + x.cached_share / x.cached_for,
        "quality_loss": where(x.cached_share > 0.0, float("nan"), 0.0),
    }


TECHNIQUE = Technique(
    name="block_caching",
    summary="blocks computed only every few steps",
    source="F. Wimbauer et al. (Cache Me if You Can), arXiv:2312.03209",
    phases=frozenset({"image"}),
    neutral={"cached_share": 0.0, "cached_for": 1.0},
    axes=axes,
    layout=layout,
    opt_in=True,
)
