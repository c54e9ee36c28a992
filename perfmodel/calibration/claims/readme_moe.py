"""Experts that the tokens of a pass choose."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.layers import Sizes, busy_experts
from perfmodel.specs.architecture import Moe
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model

__all__ = ["chosen"]


def chosen(run: Run, tokens: float, alike: float = 1.0) -> float:
    """Distinct experts of one layer."""
    architecture = load_model(find_model(str(run.asked().model))).architecture
    moe = next(r.layer.ffn for r in architecture.runs if isinstance(r.layer.ffn, Moe))
    return float(busy_experts(moe, Sizes(sequences=tokens, queries=1.0, context=1.0, tokens_alike=alike)))
