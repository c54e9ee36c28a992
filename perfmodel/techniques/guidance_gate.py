"""Late steps without guidance and without cross-attention: the prompt has said what it had to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.elementwise import where
from perfmodel.specs.quality import published_loss
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan

__all__ = ["TECHNIQUE"]

NAME = "guidance_gate"
NEVER = 0.0


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Never, or after the steps of the published settings."""
    steps = (5.0, 8.0, 10.0)
    return (Axis.of("gate_after", (NEVER, *(s for s in steps if s < situation.workload.steps))),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Steps after which guidance and cross-attention rest, and the published loss for this model."""
    model = situation.architecture
    loss = published_loss(NAME, "late", model.family, model.parameters)
    known = float("nan") if loss is None else loss.value
    return {
        "rests_after": where(x.gate_after > NEVER, x.gate_after, float("inf")),
        "quality_loss": where(x.gate_after > NEVER, known, 0.0),
    }


TECHNIQUE = Technique(
    name=NAME,
    summary="guidance and cross-attention rest after a few steps",
    source="W. Zhang et al. (T-GATE), arXiv:2404.02747",
    phases=frozenset({"image"}),
    neutral={"gate_after": NEVER},
    axes=axes,
    layout=layout,
    opt_in=True,
)
