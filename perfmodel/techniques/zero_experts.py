"""Experts that compute nothing: a token may choose to be dropped, copied or replaced by a constant.

Such experts lie on every rank, so what is chosen among them neither multiplies nor travels. The model must have been
trained with them; their share is that of the choices, and what it does to quality is not published as a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.elementwise import where
from perfmodel.specs.architecture import Moe
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]

SHARES = (0.0, 0.115, 0.25)
"""Shares of the choices: 1.77 and 1.5 of 2 experts per token compute (MoE++ repository)."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Share of the choices, for models with experts."""
    routed = any(isinstance(run.layer.ffn, Moe) for run in situation.architecture.runs)
    return (Axis.of("idle_choices", SHARES if routed else SHARES[:1]),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """What experts and their exchange read."""
    del situation
    return {"idle_choices": x.idle_choices, "quality_loss": where(x.idle_choices > 0.0, float("nan"), 0.0)}


def describe(x: Plan) -> str:
    """Share of the choices."""
    return f"{x.idle_choices:.3g} of the chosen experts compute nothing" if x.idle_choices else ""


TECHNIQUE = Technique(
    name="zero_experts",
    summary="some of the experts to choose from compute nothing",
    source="P. Jin et al. (MoE++), arXiv:2410.07348",
    phases=frozenset({"training", "serving"}),
    neutral={"idle_choices": 0.0},
    axes=axes,
    layout=layout,
    describe=describe,
    opt_in=True,
)
